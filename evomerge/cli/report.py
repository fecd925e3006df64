"""`evomerge report RUN`: what came of a search that has ended."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.screen import stdout


class Format(StrEnum):
    """How to print it."""

    table = "table"
    md = "md"
    json = "json"


def command(
    run: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)],
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.table,
    storage: Annotated[
        str | None, typer.Option(help="The run's database URL, if it needs a password.")
    ] = None,
) -> None:
    """Print what a search came to: the chosen, their scores on report items, their gains with intervals."""
    from evomerge.archive.run import open_run
    from evomerge.report.closing import closing_of, closing_table, details, headline, markdown

    opened = open_run(run, storage=storage)
    report = closing_of(opened)
    if format is Format.json:
        typer.echo(json.dumps(report.to_json(), indent=2, ensure_ascii=False))
    elif format is Format.md:
        typer.echo(markdown(report, opened.record))
    else:
        stdout.print(closing_table(report, opened.record))
        for sentence in (*headline(report), "", *details(report, opened.record)):
            stdout.print(sentence, highlight=False, markup=False)
