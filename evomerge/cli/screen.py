"""Where talk goes (stderr) and where data goes (stdout), and how much of it."""

from __future__ import annotations

import logging
import os
import sys
from enum import StrEnum
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from evomerge.others_words import plain

for stream in ("stdout", "stderr"):
    if getattr(sys, stream) is None:  # the caller closed it
        setattr(sys, stream, Path(os.devnull).open("w"))  # noqa: SIM115  # for as long as the process lives

_PIPE_WIDTH = 1000  # nothing breaks in files and CI logs
_OTHERS = ("ray", "lm_eval", "transformers")
"""The loggers of libraries that are told to say as much as evomerge does, once that is more than usual."""

stderr = Console(stderr=True, width=None if sys.stderr.isatty() else _PIPE_WIDTH)
stdout = Console(soft_wrap=True, width=None if sys.stdout.isatty() else _PIPE_WIDTH)


class LogLevel(StrEnum):
    """What is told on stderr: this and what weighs more."""

    debug = "debug"
    info = "info"
    warning = "warning"
    error = "error"

    @property
    def number(self) -> int:
        """The level as `logging` counts."""
        return logging.getLevelNamesMapping()[self.upper()]


def screen_log() -> logging.Handler:
    """Return what shows warnings: in colour on a terminal, a plain line each elsewhere.

    On a terminal they go through the console, so that they appear above what is drawn there live.
    """
    if stderr.is_terminal:
        handler: logging.Handler = RichHandler(console=stderr, show_time=False, show_path=False)
        handler.setFormatter(_PlainFormatter("%(message)s"))
    else:
        handler = logging.StreamHandler()
        handler.setFormatter(_PlainFormatter("%(levelname)s %(message)s"))
    handler.setLevel(logging.WARNING)
    return handler


def set_log_level(level: LogLevel) -> None:
    """Show on the screen what is of this level or above, of evomerge and, from `info` down, of libraries.

    Ray's own processes write to files of their own; what is heard of it is what it says in this one.
    """
    for handler in logging.getLogger().handlers:
        if isinstance(handler, RichHandler | logging.StreamHandler) and isinstance(
            handler.formatter, _PlainFormatter
        ):
            handler.setLevel(level.number)
    logging.getLogger("evomerge").setLevel(min(level.number, logging.WARNING))
    if level.number < logging.WARNING:
        for name in _OTHERS:
            logging.getLogger(name).setLevel(level.number)


def said_error(message: str, *, lines: bool = False) -> None:
    """Print an error; with `lines`, its lines are kept, as each is a mistake of its own."""
    said = "\n".join(map(plain, message.split("\n"))) if lines else plain(message)
    stderr.print(f"[bold red]error:[/] {escape(said)}", highlight=False, soft_wrap=True)


class _PlainFormatter(logging.Formatter):
    """Names in a checkpoint or a config are others' words: they must not steer the terminal."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        return plain(super().formatMessage(record))
