"""What was found out about large files, kept until they change: to read a model again takes a minute.

A file is known by its place on the disk, its size and the times of its last changes, as git's index knows
what it has hashed. The second of these times is the system's own and cannot be set back. A file that changed
a moment ago is not kept: what changes it once more might leave the same time.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Literal, TypeAlias

from evomerge.reading import parse_json

_log = logging.getLogger(__name__)

Fact: TypeAlias = Literal["blake2b", "finite"]

FILE = Path("~/.cache/evomerge/seen.json")
_WORTH = 1 << 26
"""Bytes: what is smaller is read at once."""
_SETTLED = 2_000_000_000  # nanoseconds
_MOST = 4000
_one_at_a_time = threading.Lock()


def found(fact: Fact, path: Path, find: Callable[[], str]) -> str:
    """Return what `find` says of the file `path`, or said when the file was as it is now."""
    before = stamp(path)
    if before is None:
        return find()
    key = f"{fact} {before}"
    if (known := _read().get(key)) is not None:
        return known
    value = find()
    remember({key: value})  # if the file has changed meanwhile, nobody will ask by what it was
    return value


def stamp(path: Path) -> str | None:
    """Return what tells whether a file has changed, None if that would not be worth it or not be sure."""
    now = path.stat()
    if now.st_size < _WORTH or time.time_ns() - max(now.st_mtime_ns, now.st_ctime_ns) < _SETTLED:
        return None
    return f"{now.st_dev} {now.st_ino} {now.st_size} {now.st_mtime_ns} {now.st_ctime_ns}"


def remember(facts: dict[str, str]) -> None:
    """Add facts to those kept, of which the oldest go; where nothing can be kept, nothing is."""
    with _one_at_a_time:
        kept = list((_read() | facts).items())[-_MOST:]
        try:
            target = FILE.expanduser()
            target.parent.mkdir(parents=True, exist_ok=True)
            handle, name = tempfile.mkstemp(dir=target.parent)
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(dict(kept), file)
            Path(name).replace(target)
        except (OSError, RuntimeError) as error:  # the latter where nobody has a home
            _log.debug("%s cannot be written: %s", FILE, error)


def _read() -> dict[str, str]:
    try:
        content = parse_json(FILE.expanduser().read_text(encoding="utf-8"))
    except (OSError, ValueError, RuntimeError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {key: value for key, value in content.items() if isinstance(value, str)}
