"""`evomerge front RUN`: the Pareto front of a run."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.screen import stderr, stdout

if TYPE_CHECKING:
    import pandas as pd


class Format(StrEnum):
    """How to print a table."""

    table = "table"
    csv = "csv"
    json = "json"
    md = "md"


def command(
    run: Annotated[Path, typer.Argument(help="The run folder.", show_default=False)],
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.table,
    storage: Annotated[
        str | None, typer.Option(help="The run's database URL, if it needs a password.")
    ] = None,
) -> None:
    """Print the Pareto front of a run, finished or not."""
    from evomerge.archive.run import open_run
    from evomerge.report.front import chosen_sentences, front_frame, front_table, markdown

    opened = open_run(run, storage=storage)
    frame: pd.DataFrame = front_frame(opened)
    if format is Format.table:
        stdout.print(front_table(opened, frame))
        if frame.empty:
            constrained = " that meets every constraint" if opened.record.constraints else ""
            stderr.print(f"No candidate has been scored{constrained}.")
        for sentence in chosen_sentences(opened, frame):
            stderr.print(sentence, highlight=False, markup=False)
    elif format is Format.csv:
        typer.echo(frame.to_csv(index=False), nl=False)
    elif format is Format.json:
        typer.echo(frame.to_json(orient="records", indent=2))
    else:
        typer.echo(markdown(frame))
