"""Commands run as a user runs them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def evomerge_command(*arguments: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Return what a command said and how it ended."""
    command = [sys.executable, "-m", "evomerge", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, check=False)
