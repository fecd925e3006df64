"""Where talk goes (stderr) and where data goes (stdout)."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

from rich.console import Console

for stream in ("stdout", "stderr"):
    if getattr(sys, stream) is None:  # the caller closed it
        setattr(sys, stream, Path(os.devnull).open("w"))  # noqa: SIM115  # for as long as the process lives

_PIPE_WIDTH = 1000  # nothing breaks in files and CI logs

stderr = Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH)
stdout = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_WIDTH)

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")
_LONGEST = 4000


def plain(text: str) -> str:
    """Return a text as one line that cannot steer a terminal, its middle left out where it is very long."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} … {text[-_LONGEST // 2 :]}"
    return _CONTROLS.sub(lambda found: found[0].encode("unicode_escape").decode(), text)
