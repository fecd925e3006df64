"""Files that are whole or not there, and lines that are whole or cut off."""

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.archive.files import (
    append_line,
    clear_beside,
    folder_beside,
    replace_folder,
    trim_torn_line,
    write_json,
    write_text,
    writing,
)
from evomerge.errors import ExportError


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
        (b"one\ntwo\n\0\0", b"one\ntwo\n"),
        (b"one\nt\0o\n\0\0e\nfo", b"one\n"),
        (b"\0\0\n", b""),
        (b"one\nt\0o\nthree\n", b"one\n"),
        (b"\0\n" + bytes(1 << 20).replace(b"\0", b"x") + b"\n", b"\0\n" + b"x" * (1 << 20) + b"\n"),
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


@pytest.fixture
def fresh(tmp_path: Path) -> Path:
    """Return a folder that is to take the place of `target`, which lies beside it."""
    for name, content in ((".fresh", "new"), ("target", "old")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "content").write_text(content)
    return tmp_path / ".fresh"


def left(folder: Path) -> dict[str, str]:
    """Return the folders in `folder`, dot names too, and what each holds."""
    return {each.name: (each / "content").read_text() for each in folder.iterdir()}


def at_rename(monkeypatch: pytest.MonkeyPatch, number: int, act: Callable[[], None]) -> None:
    """Let `act` happen instead of (if it raises) or right before the rename of this number."""
    rename, seen = Path.rename, 0

    def counted(path: Path, to: Any) -> Path:
        nonlocal seen
        seen += 1
        if seen == number:
            act()
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", counted)


def test_a_folder_takes_the_place_of_another_or_of_none(fresh: Path, tmp_path: Path) -> None:
    replace_folder(fresh, tmp_path / "target")
    assert left(tmp_path) == {"target": "new"}
    replace_folder(tmp_path / "target", tmp_path / "free")
    assert left(tmp_path) == {"free": "new"}


@pytest.mark.parametrize("number", [1, 2])
def test_an_interrupt_waits_until_a_folder_is_replaced(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    at_rename(monkeypatch, number, lambda: signal.raise_signal(signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
        replace_folder(fresh, tmp_path / "target")
    assert left(tmp_path) == {"target": "new"}


@pytest.mark.parametrize("number", [1, 2])
def test_an_error_leaves_the_old_folder_where_it_was(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def fail() -> None:
        raise OSError("no")

    at_rename(monkeypatch, number, fail)
    with pytest.raises(OSError, match="no"):
        replace_folder(fresh, tmp_path / "target")
    assert left(tmp_path) == {"target": "old", ".fresh": "new"}


def test_an_old_folder_that_cannot_be_deleted_is_told_of(
    fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(shutil, "rmtree", refuse)
    replace_folder(fresh, tmp_path / "target")
    assert left(tmp_path) == {"target": "new", ".fresh": "old"}
    assert str(tmp_path / ".fresh") in caplog.text


def test_a_folder_beside_is_gone_unless_it_was_renamed(tmp_path: Path) -> None:
    with folder_beside(tmp_path / "a") as fresh:
        (fresh / "file").touch()
        assert fresh.parent == tmp_path
    assert list(tmp_path.iterdir()) == []
    with folder_beside(tmp_path / "a") as fresh:
        replace_folder(fresh, tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_what_a_killed_process_left_beside_one_folder_is_cleared(tmp_path: Path) -> None:
    for name in (".a-1.partial-x", ".a-1.partial-y-old", ".a-12.partial-x", "a-1"):
        (tmp_path / name).mkdir()
    clear_beside(tmp_path / "a-1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".a-12.partial-x", "a-1"]


def test_a_disk_that_cannot_be_written_is_told_in_a_sentence(tmp_path: Path) -> None:
    said = r"^writing here failed: No such file or directory$"
    with pytest.raises(ExportError, match=said), writing(Path("here")):
        (tmp_path / "none" / "file").touch()
