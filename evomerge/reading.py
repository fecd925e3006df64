"""Files that somebody else wrote, read so that they can neither hang the reader nor fill its memory."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

JSON_BYTES = 256 << 20
"""The largest tokenizers are a tenth of it."""


def read_text(path: Path, *, most: int) -> str:
    """Return the text of a file of at most so many bytes.

    Raises `OSError` for one that is larger, or that is none but a pipe, a device or a folder (which could be
    read for ever), and `ValueError` if it is not UTF-8.
    """
    with os.fdopen(_opened(path), "rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it is larger than {most / (1 << 20):g} MB", str(path))
    return content.decode("utf-8")


def parse_json(text: str | bytes) -> Any:
    """Return JSON's content. Raises `ValueError` if it is none, also for what is nested too deep to read."""
    try:
        return json.loads(text)
    except RecursionError as error:
        raise ValueError("its values are nested too deep") from error


def read_json_file(path: Path) -> Any:
    """Return the content of a JSON file. Raises what `read_text` and `parse_json` do."""
    return parse_json(read_text(path, most=JSON_BYTES))


def _opened(path: Path) -> int:
    """Open a regular file to read it; a pipe would wait for somebody to write."""
    found = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return found
