"""Writing files and folders so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evomerge.errors import ExportError
from evomerge.interrupts import held

_log = logging.getLogger(__name__)


def write_text(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it into place."""
    beside = path.with_name(f".{path.name}.partial")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)


def write_json(path: Path, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")


@contextmanager
def writing(target: Path) -> Iterator[None]:
    """Turn an `OSError` into an `ExportError` that names what was to be written."""
    try:
        yield
    except OSError as error:
        raise ExportError(f"writing {target} failed: {error.strerror or error}") from error


@contextmanager
def folder_beside(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target`; it is gone afterwards, unless it was renamed."""
    with writing(target):
        staging = Path(tempfile.mkdtemp(prefix=_partial(target), dir=target.parent))
    try:
        staging.chmod(0o755)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def clear_beside(target: Path) -> None:
    """Delete what a process that was killed left of `folder_beside`; only for who writes there alone."""
    for left in sorted(target.parent.glob(f"{_partial(target)}*")):
        shutil.rmtree(left, ignore_errors=True)


def _partial(target: Path) -> str:
    return f".{target.name}.partial-"


def replace_folder(fresh: Path, target: Path) -> None:
    """Rename `fresh`, which lies beside `target`, to `target`; a folder that was there is then deleted.

    A signal waits until that is done, and after an `OSError` the old folder is where it was. Only a
    `kill -9` or a power cut between two renames leaves it beside, as `FRESH-old`.
    """
    with held():
        if not target.exists():
            fresh.rename(target)
            return
        old = fresh.with_name(f"{fresh.name}-old")
        target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            old.rename(target)
            raise
        try:
            shutil.rmtree(old)
        except OSError as error:
            _log.warning("what %s held before could not be deleted from %s: %s", target, old, error.strerror)


def append_line(path: Path, line: str) -> None:
    """Append one line and wait until it is on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def trim_torn_line(path: Path) -> None:
    """Cut off a last line that a crash left unfinished; the next append would spoil both."""
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
