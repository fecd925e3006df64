"""Files of others are read, or refused, whatever they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evomerge.reading import parse_json, read_json_file, read_text


def test_text_is_read_up_to_the_most_bytes(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_text("héllo")
    assert read_text(file, most=6) == "héllo"
    with pytest.raises(OSError, match="it is larger than"):
        read_text(file, most=5)


def test_what_is_not_utf8_is_a_value_error(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"\xff")
    with pytest.raises(ValueError, match="utf-8"):
        read_text(tmp_path / "a", most=10)


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is no regular file"):
        read_text(tmp_path / "pipe", most=10)


@pytest.mark.parametrize("path", ["/dev/zero", "/proc/self"])
def test_devices_and_folders_are_not_read(path: str) -> None:
    with pytest.raises(OSError, match="no regular file"):
        read_text(Path(path), most=10)


def test_json_is_read_unless_it_is_nested_too_deep(tmp_path: Path) -> None:
    (tmp_path / "a").write_text('{"a": [1]}')
    assert read_json_file(tmp_path / "a") == {"a": [1]}
    with pytest.raises(ValueError, match="nested too deep"):
        parse_json("[" * 100_000)
