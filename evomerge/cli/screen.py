"""Where talk goes (stderr) and where data goes (stdout)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from rich.console import Console

for stream in ("stdout", "stderr"):
    if getattr(sys, stream) is None:  # the caller closed it
        setattr(sys, stream, Path(os.devnull).open("w"))  # noqa: SIM115  # for as long as the process lives

_PIPE_WIDTH = 1000  # nothing breaks in files and CI logs

stderr = Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH)
stdout = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
