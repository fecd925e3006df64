"""What was found out about a large file is kept until the file changes, and no longer."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.checkpoints import seen
from evomerge.checkpoints.digest import file_digest

LONG_AGO = 1_000_000_000  # seconds


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file worth keeping facts of; no file is too new."""
    monkeypatch.setattr(seen, "FILE", tmp_path / "cache" / "seen.json")
    monkeypatch.setattr(seen, "_WORTH", 4)
    monkeypatch.setattr(seen, "_SETTLED", -1 << 62)
    made = tmp_path / "weights"
    made.write_bytes(b"weights")
    return made


def asked(answer: str, path: Path) -> tuple[str, bool]:
    """Return what is said of the file, and whether it was read for that."""
    reads: list[int] = []

    def find() -> str:
        reads.append(1)
        return answer

    return seen.found("finite", path, find), bool(reads)


def test_a_file_is_read_once(file: Path) -> None:
    assert asked("yes", file) == ("yes", True)
    assert asked("no", file) == ("yes", False)
    assert seen.found("blake2b", file, lambda: "of another kind") == "of another kind"


def change(file: Path) -> None:
    """Write something of the same length, and set the time of the change back."""
    times = file.stat()
    file.write_bytes(b"WEIGHTS")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def another(file: Path) -> None:
    other = file.with_name("other")
    other.write_bytes(b"weights")
    other.replace(file)


def longer(file: Path) -> None:
    file.write_bytes(b"weights and more")


@pytest.mark.parametrize("act", [change, another, longer])
def test_what_changed_is_read_again(file: Path, act: Callable[[Path], None]) -> None:
    asked("yes", file)
    act(file)
    assert asked("no", file) == ("no", True)


def test_a_file_that_changes_while_it_is_read_is_not_kept(file: Path) -> None:
    def find() -> str:
        change(file)
        return "neither"

    assert seen.found("finite", file, find) == "neither"
    assert asked("yes", file) == ("yes", True)


def test_what_is_new_or_small_is_not_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "_WORTH", 8)
    assert asked("yes", file) == asked("yes", file) == ("yes", True)
    monkeypatch.setattr(seen, "_WORTH", 4)
    monkeypatch.setattr(seen, "_SETTLED", 1 << 50)
    assert asked("yes", file) == asked("yes", file) == ("yes", True)
    assert not seen.FILE.exists()


def test_an_error_is_not_kept(file: Path) -> None:
    def find() -> str:
        raise ValueError

    with pytest.raises(ValueError):
        seen.found("finite", file, find)
    assert asked("yes", file) == ("yes", True)


@pytest.mark.parametrize("content", ["", "[1]", "{", '{"a": 1}', "\0"])
def test_a_spoilt_cache_is_written_anew(file: Path, content: str) -> None:
    seen.FILE.parent.mkdir()
    seen.FILE.write_text(content)
    assert asked("yes", file) == ("yes", True)
    assert asked("no", file) == ("yes", False)


def test_nothing_is_kept_where_nothing_can_be(file: Path) -> None:
    seen.FILE.parent.write_text("no folder")
    assert asked("yes", file) == asked("yes", file) == ("yes", True)


def test_without_a_home_nothing_is_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "FILE", Path("~nobody-has-this-name/seen.json"))
    assert asked("yes", file) == asked("yes", file) == ("yes", True)


def test_the_oldest_facts_go(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "_MOST", 3)
    seen.remember({str(i): "" for i in range(5)})
    asked("yes", file)
    kept = list(json.loads(seen.FILE.read_text()))
    assert kept[:2] == ["3", "4"]
    assert len(kept) == 3


def test_digests_are_kept(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = file_digest(file)
    monkeypatch.setattr(seen, "_read", lambda: {f"blake2b {seen.stamp(file)}": "00" * 16})
    assert file_digest(file) != first
