"""`evomerge report RUN`: what came of a search, as a page to read and on the terminal."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.screen import stderr, stdout
from evomerge.others_words import plain

if TYPE_CHECKING:
    from evomerge.archive.run import Run


class Format(StrEnum):
    """How to print it."""

    table = "table"
    md = "md"
    json = "json"


def command(
    run: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)],
    html: Annotated[
        Path | None, typer.Option(help="Where to write the page; into the run folder, if nothing is said.")
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(help="Print the closing report like this; a page is then only written with `--html`."),
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="The run's database URL, if it needs a password.")
    ] = None,
) -> None:
    """Write report.html into the run folder, and print who was chosen, their scores and gains with intervals.

    The page opens from the disk in any browser, without a network. It can be had of a search that has not
    ended, too, and then says what is not there yet.
    """
    from evomerge.archive.run import open_run
    from evomerge.report.html import write_page

    opened = open_run(run, storage=storage)
    if format is not None:
        _print(opened, format)
    if format is None or html is not None:
        page = write_page(opened, html)
        if format is None:
            _print_if_ended(opened)
        stderr.print(plain(f"Report: {page}"), highlight=False, markup=False, soft_wrap=True)


def _print_if_ended(run: Run) -> None:
    """Print the table of a search that has ended, or say that it has not."""
    from evomerge.errors import RunError

    try:
        _print(run, Format.table)
    except RunError as error:  # it has not ended, which the page says, too
        stderr.print(plain(str(error)), highlight=False, markup=False, soft_wrap=True)


def _print(run: Run, format: Format) -> None:
    """Print the closing report. Raises `RunError` if the search has not ended."""
    from evomerge.report.closing import closing_of, closing_table, details, headline, markdown

    report = closing_of(run)
    if format is Format.json:
        typer.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    elif format is Format.md:
        typer.echo(markdown(report, run.record))
    else:
        stdout.print(closing_table(report, run.record))
        for sentence in (*headline(report), "", *details(report, run.record)):
            stdout.print(sentence, highlight=False, markup=False)
