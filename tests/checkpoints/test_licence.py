"""Licences as model cards state them, and which of several is the strictest."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evomerge.checkpoints.licence import MEANING, Licence, Strictness, conflict, read_licence, strictest


def card(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "README.md").write_text(text, encoding="utf-8")
    return folder


@pytest.mark.parametrize(
    ("text", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\n# A model\n", Licence(key="apache-2.0")),
        ("\n---\r\nlicense: mit\r\n---", Licence(key="mit")),
        (
            "---\nlicense: other\nlicense_name: tongyi qianwen\nlicense_link: LICENSE\n---\n",
            Licence(key="other", name="tongyi qianwen"),
        ),
        ("---\nlicense: [mit, apache-2.0]\n---\n", Licence(key="mit")),
        ("---\ntags: [merge]\n---\n", Licence()),
        ("---\nlicense: {a: b}\n---\n", Licence()),
        ("---\nlicense: 3\n---\n", Licence()),
        ("---\nlicense: [\n---\n", Licence()),
        ("---\n- license\n---\n", Licence()),
        ("# license: mit\n", Licence()),
        ("text\n---\nlicense: mit\n---\n", Licence()),
    ],
)
def test_a_licence_is_what_the_head_of_the_card_states(tmp_path: Path, text: str, licence: Licence) -> None:
    assert read_licence(card(tmp_path / "model", text)) == licence


def test_no_card_and_no_file_at_all_state_none(tmp_path: Path) -> None:
    assert read_licence(tmp_path) == Licence()
    os.mkfifo(tmp_path / "README.md")
    assert read_licence(tmp_path) == Licence()
    assert str(Licence()) == "none stated"


@pytest.mark.parametrize(
    ("key", "strictness"),
    [
        ("cc0-1.0", Strictness.FREE),
        ("apache-2.0", Strictness.PERMISSIVE),
        ("mit", Strictness.PERMISSIVE),
        ("bsd-3-clause", Strictness.PERMISSIVE),
        ("cc-by-4.0", Strictness.PERMISSIVE),
        ("cc-by-sa-4.0", Strictness.SHARE_ALIKE),
        ("lgpl-3.0", Strictness.SHARE_ALIKE),
        ("gpl-3.0", Strictness.COPYLEFT),
        ("agpl-3.0", Strictness.COPYLEFT),
        ("llama2", Strictness.OF_ITS_OWN),
        ("llama3.1", Strictness.OF_ITS_OWN),
        ("gemma", Strictness.OF_ITS_OWN),
        ("openrail", Strictness.OF_ITS_OWN),
        ("other", Strictness.OF_ITS_OWN),
        ("mitigated", Strictness.OF_ITS_OWN),
        ("cc-by-nc-4.0", Strictness.NON_COMMERCIAL),
        ("cc-by-nc-sa-4.0", Strictness.NON_COMMERCIAL),
        ("cc-by-nc-nd-4.0", Strictness.NO_DERIVATIVES),
        ("cc-by-nd-4.0", Strictness.NO_DERIVATIVES),
        ("unknown", Strictness.NONE),
        ("", Strictness.NONE),
    ],
)
def test_kinds_of_licences(key: str, strictness: Strictness) -> None:
    assert Licence(key=key).strictness is strictness
    assert MEANING[strictness]


def test_the_name_of_another_licence_counts() -> None:
    named = Licence(key="other", name="microsoft-research-license")
    assert named.strictness is Strictness.NON_COMMERCIAL


def test_the_strictest_is_the_first_that_leaves_the_least() -> None:
    stated = {"a": Licence(key="mit"), "b": Licence(key="llama2"), "c": Licence(key="gemma"), "d": Licence()}
    assert strictest({name: stated[name] for name in "abc"}) == "b"
    assert strictest(stated) == "d"


@pytest.mark.parametrize(
    ("one", "other", "found"),
    [
        ("gpl-3.0", "mit", False),
        ("gpl-3.0", "gpl-3.0", False),
        ("gpl-3.0", "cc-by-sa-4.0", True),
        ("gpl-3.0", "cc-by-nc-4.0", True),
        ("llama2", "gemma", False),
        ("mit", "cc-by-nc-4.0", False),
    ],
)
def test_licences_that_both_want_to_be_that_of_the_merge(one: str, other: str, found: bool) -> None:
    pair = conflict({"a": Licence(key=one), "b": Licence(key=other)})
    assert (pair is not None) is found
