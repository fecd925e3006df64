"""Where talk goes (stderr) and where data goes (stdout)."""

from __future__ import annotations

import sys

from rich.console import Console

_PIPE_WIDTH = 1000  # nothing breaks in files and CI logs

stderr = Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH)
stdout = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
