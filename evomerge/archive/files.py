"""Writing files and folders so that a crash leaves the old one or the new one, never half of one."""

from __future__ import annotations

import errno
import fcntl
import glob
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from evomerge.errors import ExportError, RunError
from evomerge.interrupts import held
from evomerge.reading import parse_json

_log = logging.getLogger(__name__)

_PARTIAL = ".partial"
_OLD = "-old"
_TRIES = 10
_WAITED_FOR = 1 << 20
"""Bytes: more than was ever written without waiting until it was on the disk."""


def write_text(path: Path, text: str) -> None:
    """Write `text` beside `path` and rename it into place; what cannot be written whole is deleted."""
    beside = path.with_name(f".{path.name}{_PARTIAL}")
    try:
        with beside.open("w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise


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
    """Give an empty folder beside `target`; it is gone afterwards, unless it was renamed.

    While the process lives it holds a lock on the folder, so that nobody takes it for left.
    """
    with writing(target):
        staging, lock = _locked_folder(target)
    try:
        staging.chmod(0o755)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        os.close(lock)


def _locked_folder(target: Path) -> tuple[Path, int]:
    """Return a new folder beside `target`, and the descriptor by which it is locked."""
    for _ in range(_TRIES):
        staging = Path(tempfile.mkdtemp(prefix=_partial(target), dir=target.parent))
        with suppress(FileNotFoundError):  # somebody cleared it before it was locked
            lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
            with suppress(OSError):  # not every file system locks folders
                fcntl.flock(lock, fcntl.LOCK_EX)
            if staging.exists():
                return staging, lock
            os.close(lock)
    raise FileExistsError(errno.EEXIST, "another process clears this place over and over")


def clear_beside(target: Path) -> None:
    """Delete what processes that were killed left of `folder_beside`, and nothing of those that live.

    A folder that `replace_folder` had moved away, and nothing had taken its place, is put back.
    """
    for left in sorted(target.parent.glob(f"{glob.escape(_partial(target))}*")):
        if _is_used(left.with_name(left.name.removesuffix(_OLD))):
            continue
        if left.name.endswith(_OLD) and not target.exists():
            left.rename(target)
        else:
            shutil.rmtree(left, ignore_errors=True)


def _is_used(staging: Path) -> bool:
    """Return whether a process that lives has a folder of `folder_beside`, or that cannot be told."""
    try:
        lock = os.open(staging, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def _partial(target: Path) -> str:
    return f".{target.name}{_PARTIAL}-"


def replace_folder(fresh: Path, target: Path) -> None:
    """Rename `fresh`, which lies beside `target`, to `target`; a folder that was there is then deleted.

    What is in `fresh` is on the disk before it has the name by which it counts. A signal waits until that is
    done, and after an `OSError` the old folder is where it was. Only a `kill -9` or a power cut between two
    renames leaves it beside, whole, as `FRESH-old`; `clear_beside` puts it back.
    """
    _sync(fresh)
    with held():
        if not target.exists():
            fresh.rename(target)
            return
        old = fresh.with_name(f"{fresh.name}{_OLD}")
        target.rename(old)
        try:
            fresh.rename(target)
        except BaseException:
            old.rename(target)
            raise
        try:
            shutil.rmtree(old.rename(fresh))  # a kill in the middle must leave no half as FRESH-old
        except OSError as error:
            _log.warning(
                "what %s held before could not be deleted from %s: %s", target, fresh, error.strerror
            )


def _sync(folder: Path) -> None:
    """Wait until a folder and all that is in it are on the disk."""
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def append_line(path: Path, line: str) -> None:
    """Append one line and wait until it is on the disk."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
        file.flush()
        os.fsync(file.fileno())


def parse_line(line: str, path: Path, *keys: str) -> dict[str, Any]:
    """Return a line of a JSON-lines file. Raises `RunError` if it is no object with these `keys`."""
    try:
        content = parse_json(line)
        for key in keys:
            content[key]
    except (ValueError, LookupError, TypeError) as error:
        raise RunError(
            f"{path} is damaged: it holds a line that evomerge did not write; put a copy back, or start a "
            "new run"
        ) from error
    return dict(content)


def trim_torn_line(path: Path) -> None:
    """Cut off a last line that a crash left unfinished; the next append would spoil both.

    A power cut may also leave zeros in the place of what was last written, be it with the line's end or, of
    lines that were waited for together, with whole ones behind them.
    """
    if not path.exists():
        return
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        zero = content.find(b"\0", max(0, whole - _WAITED_FOR))
        if zero >= 0:
            whole = content.rfind(b"\n", 0, zero) + 1
        if whole < len(content):
            file.truncate(whole)
