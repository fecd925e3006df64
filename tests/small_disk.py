"""A real disk that is soon full: a tmpfs of a few megabytes, as only root can mount one."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_FILLER = "filler"


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """Give an empty disk at `place`; where none can be mounted, the test is skipped."""
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(place)]
    done = subprocess.run(mount, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"no disk can be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


def fill(disk: Path, *, left: int) -> None:
    """Leave so many bytes of a disk free."""
    room = shutil.disk_usage(disk).free - left
    with (disk / _FILLER).open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, room)


def make_room(disk: Path) -> None:
    """Delete what `fill` wrote."""
    (disk / _FILLER).unlink()
