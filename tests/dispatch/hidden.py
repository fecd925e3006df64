"""Processes that see an empty disk where others see a folder: nodes that share no disk, on one machine."""

from __future__ import annotations

import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

_MOUNT = 'mount -t tmpfs -o size="$2" none "$1" && shift 2 && exec "$@"'


@functools.cache
def hides() -> bool:
    """Return whether this machine lets us do so."""
    try:
        return (
            subprocess.run(unshared(["true"], Path("/mnt")), capture_output=True, check=False).returncode == 0
        )
    except FileNotFoundError:
        return False


def unshared(command: Sequence[str], folder: Path, *, size: str = "64m") -> list[str]:
    """Return the command that runs `command` with an empty disk in place of `folder`."""
    user = [] if os.getuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *user, "sh", "-c", _MOUNT, "sh", str(folder), size, *command]
