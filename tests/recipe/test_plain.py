"""YAML of others is plain, bounded, and says each key once."""

from __future__ import annotations

import pytest

from evomerge.errors import RecipeError
from evomerge.recipe.plain import read_plain

BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{here}: &{here} [{', '.join(['*' + before] * 10)}]\n"
    for before, here in zip("abcdefgh", "bcdefghi", strict=True)
)


def test_plain_values_are_read() -> None:
    assert read_plain("a: 1\nb: [x, 2.5, true]\n") == {"a": 1, "b": ["x", 2.5, True]}
    assert read_plain("") is None
    assert read_plain("a: &a [1]\nb: *a\n") == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (BOMB, "aliases unfold too far"),
        ("a: &a [*a]", "nested deeper than 20 levels"),
        ("[" * 100_000, "nested deeper than 20 levels"),
        ("a: " + "[" * 50 + "]" * 50, "nested deeper than 20 levels"),
        ("a: 1\nb: 2\na: 3\n", "line 3: `a` stands twice, first in line 1"),
        ("a: {b: 1, b: 2}", "`b` stands twice"),
        ("a: !!python/object/apply:os.getcwd []", "not YAML: could not determine a constructor"),
        ("a: 2020-99-99", "not YAML: month must be in"),
        ("a: !!bool x", "not YAML"),
        ("a: !!timestamp x", "not YAML"),
        ("a: \x00", "not YAML"),
    ],
)
def test_what_others_would_choke_on_is_refused(text: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        read_plain(text)
