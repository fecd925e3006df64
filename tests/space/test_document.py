"""YAML that knows its lines, and YAML that is no data."""
# ruff: noqa: E501 - messages stand as users see them

import re

import pytest

from evomerge.errors import SpaceError
from evomerge.space.document import dotted, read_document


def refusal(text: str) -> str:
    with pytest.raises(SpaceError) as caught:
        read_document(text, "s.yaml")
    return str(caught.value)


def test_content_is_plain_data() -> None:
    document = read_document("a: 1\nb: [2.5, yes, ~, word]\nc: {d: '3'}\n", "s.yaml")
    assert document.content == {"a": 1, "b": [2.5, True, None, "word"], "c": {"d": "3"}}


def test_keys_are_text_whatever_they_look_like() -> None:
    assert read_document("3: a\non: b\n", "s.yaml").content == {"3": "a", "on": "b"}


def test_every_key_and_entry_knows_its_line() -> None:
    document = read_document("a: 1\nb:\n  - 2\n  - c: 3\n", "s.yaml")
    lines = [document.line(path) for path in (("a",), ("b",), ("b", 0), ("b", 1), ("b", 1, "c"))]
    assert lines == [1, 2, 3, 4, 4]


def test_a_place_that_is_not_there_has_the_line_of_what_holds_it() -> None:
    document = read_document("a: 1\nb:\n  c: 2\n", "s.yaml")
    assert document.where(("b", "missing")) == "s.yaml:2: `b.missing`"
    assert document.where(("missing",)) == "s.yaml:1: `missing`"


def test_what_was_given_in_place_of_a_key_has_no_line() -> None:
    document = read_document("a: 1\nb: {c: 2}\n", "s.yaml").but({"b": {"c": 3}})
    assert document.content == {"a": 1, "b": {"c": 3}}
    assert document.where(("a",)) == "s.yaml:1: `a`"
    assert document.where(("b", "c")) == "`b.c` as given"


def test_a_path_is_written_as_people_write_it() -> None:
    assert dotted(("objectives", 0, "task")) == "`objectives[0].task`"
    assert dotted(()) == "the file"


def test_an_alias_stands_for_its_anchor() -> None:
    assert read_document("a: &x [1]\nb: *x\n", "s.yaml").content == {"a": [1], "b": [1]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: [1\nc: 2\n", "s.yaml:3: not YAML: expected ',' or ']', but got ':'"),
        ("a:\n\tb: 1\n", r"s.yaml:2: not YAML: found character '\t' that cannot start any token"),
        ("a: 1\n---\nb: 2\n", "s.yaml:2: not YAML: expected a single document in the stream, but found another document"),
        ("a: 1\nb: \x00\n", "s.yaml:2: not YAML: the character 0x0000 may not stand there"),
        ("a: 1\nb: 2\na: 3\n", "s.yaml:3: `a` stands twice"),
        ("a:\n  b: 1\n  b: 2\n", "s.yaml:3: `a.b` stands twice"),
        ("a: 1\n? [b]\n: 2\n", "s.yaml:2: a key must be a word"),
        ("a: &x {b: 1}\nc:\n  <<: *x\n", "s.yaml:3: `<<` is not read; write the keys out"),
        ("a: 1\nb: 2020-13-41\n", "s.yaml:2: `2020-13-41` cannot be read: month must be in 1..12"),
        ("a: 1\nb: &x [*x]\n", "s.yaml:2: values are nested deeper than 20 levels"),
        ("a: " + "[" * 3000 + "]" * 3000, "s.yaml: values are nested deeper than 20 levels"),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_refused_with_its_line(text: str, message: str) -> None:
    assert refusal(text) == message


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "word\n"])
def test_a_file_that_is_no_table_is_refused(text: str) -> None:
    assert refusal(text) == "s.yaml:1: a space is a table of keys, like `sources:` and `objectives:`"


@pytest.mark.parametrize(
    "value",
    [
        "!!python/object/apply:os.system [touch hacked]",
        "!!python/object:os.PathLike {}",
        "!!python/name:os.system ''",
        "!mine word",
        "!mine [1]",
    ],
)
def test_a_tag_that_could_run_code_is_refused(value: str) -> None:
    assert re.fullmatch(r"s\.yaml:2: \S+ values are not read", refusal(f"a: 1\nb: {value}\n"))


def test_aliases_that_unfold_without_end_are_refused() -> None:
    rows = ["l0: &l0 [x, x, x, x, x, x, x, x, x]"]
    rows += [f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]" for i in range(1, 10)]
    assert refusal("\n".join(rows)) == "s.yaml: more than 20000 values; aliases unfold too far"
