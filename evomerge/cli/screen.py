"""Where talk goes (stderr) and where data goes (stdout)."""

from __future__ import annotations

import sys

from rich.console import Console

_PIPE_WIDTH = 120  # tables in files and CI logs need not break at 80 columns

stderr = Console(stderr=True)
stdout = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_WIDTH)
