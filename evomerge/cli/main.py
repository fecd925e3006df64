"""The `evomerge` command: its subcommands, its exit codes, its log.

Exit codes: 0 done, 1 the work failed, 2 the request is wrong, 130 interrupted (and resumable).
"""

from __future__ import annotations

import errno
import importlib.metadata
import io
import logging
import os
import signal
import sys
from typing import Annotated

import typer

from evomerge import plugins
from evomerge.cli import (
    check,
    convert,
    dashboard,
    evaluate,
    export,
    front,
    measure,
    methods,
    report,
    schema,
    search,
    zoo,
)
from evomerge.cli.screen import said_error, screen_log
from evomerge.errors import ConversionError, EvomergeError, RequestError, SpaceError

_log = logging.getLogger(__name__)

_WRONG_PATH = (
    errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.ELOOP, errno.ENAMETOOLONG,
    errno.EROFS, errno.EINVAL,
)  # fmt: skip
"""What is wrong with a path that a request names, in the words of the system."""

app = typer.Typer(
    name="evomerge",
    help="Find how to merge language models: search merge recipes, export the best.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


def _show_version(asked: bool) -> None:
    if asked:
        typer.echo(f"evomerge {importlib.metadata.version('evomerge')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_show_version, help="Show the version.")
    ] = False,
) -> None:
    del version


app.command(
    "search",
    epilog=f"Merge methods: {', '.join(plugins.names('methods'))}. `evomerge methods NAME` explains one.",
)(search.command)
app.command("check")(check.command)
app.command("front")(front.command)
app.command("report")(report.command)
app.command("export")(export.command)
app.command("convert")(convert.command)
app.command("evaluate")(evaluate.command)
app.command("measure")(measure.command)
app.command("dashboard")(dashboard.command)
app.command("methods")(methods.command)
app.command("schema")(schema.command)
app.add_typer(zoo.app, name="zoo")


def main() -> None:
    """Run the command line; every error evomerge can explain is one sentence on stderr."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an arrow may be more than the locale has
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")  # lm-eval's bars; tqdm reads it when first imported
    logging.basicConfig(handlers=[screen_log()])
    signal.signal(signal.SIGTERM, _as_interrupt)
    try:
        app(standalone_mode=True)
    except RequestError as error:
        said_error(
            str(error), lines=isinstance(error, SpaceError | ConversionError)
        )  # a line for each mistake
        sys.exit(2)
    except EvomergeError as error:
        said_error(str(error))
        sys.exit(1)
    except OSError as error:
        if error.errno in _WRONG_PATH and error.filename is not None:
            _log.debug("", exc_info=error)
            said_error(f"{os.fsdecode(error.filename)} cannot be used: {error.strerror}")
            sys.exit(2)
        if error.errno not in (errno.ENOSPC, errno.EBADF):
            raise
        said_error(f"{error.filename or 'the output'} cannot be written: {error.strerror}")
        os._exit(1)  # Python would fail to flush the output once more


def _as_interrupt(signum: int, frame: object) -> None:
    """Let SIGTERM clean up as Ctrl-C does."""
    del signum, frame
    raise KeyboardInterrupt
