"""Files that are whole or not there, and lines that are whole or cut off."""

import json
import os
from pathlib import Path

import pytest

from evomerge.archive.files import append_line, trim_torn_line, write_json, write_text


def test_text_is_written_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old ü\n")
    write_text(file, "new\n")
    assert file.read_text(encoding="utf-8") == "new\n"
    assert list(tmp_path.iterdir()) == [file]


def test_a_crash_before_the_rename_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "a.txt"
    write_text(file, "old\n")

    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        write_text(file, "new\n")
    assert file.read_text() == "old\n"
    monkeypatch.undo()
    write_text(file, "newer\n")  # over whatever the crash left
    assert [path.name for path in tmp_path.iterdir()] == ["a.txt"]
    assert file.read_text() == "newer\n"


def test_what_cannot_be_json_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "a.json"
    write_json(file, {"a": "ü"})
    with pytest.raises(TypeError):
        write_json(file, {"a": object()})
    assert json.loads(file.read_text(encoding="utf-8")) == {"a": "ü"}
    assert list(tmp_path.iterdir()) == [file]


def test_lines_are_appended(tmp_path: Path) -> None:
    file = tmp_path / "a.log"
    append_line(file, "one")
    append_line(file, "two")
    assert file.read_bytes() == b"one\ntwo\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"one\ntw", b"one\n"),
        (b"tw", b""),
        (b"", b""),
        (b"one\n\xff\xfe", b"one\n"),
        (b"one\n\n", b"one\n\n"),
    ],
)
def test_a_torn_last_line_is_cut_off_and_whole_ones_stay(tmp_path: Path, before: bytes, after: bytes) -> None:
    file = tmp_path / "a.log"
    file.write_bytes(before)
    trim_torn_line(file)
    assert file.read_bytes() == after


def test_trimming_a_file_that_is_not_there_makes_none(tmp_path: Path) -> None:
    trim_torn_line(tmp_path / "none")
    assert list(tmp_path.iterdir()) == []
