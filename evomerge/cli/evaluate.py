"""`evomerge evaluate SPACE MODEL|RECIPE|RUN`: score anything with a space's objectives."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.screen import stderr, stdout

if TYPE_CHECKING:
    from rich.table import Table

    from evomerge.publish.evaluation import Evaluated


class Items(StrEnum):
    """Which of the space's items to ask."""

    search = "search"
    select = "select"
    report = "report"


class Format(StrEnum):
    """How to print it."""

    table = "table"
    json = "json"


def command(
    space: Annotated[Path, typer.Argument(help="The space file (YAML).", show_default=False)],
    what: Annotated[
        str,
        typer.Argument(
            help="A model (folder, hub id, zoo:NAME, a source of the space), a recipe file or a run folder.",
            show_default=False,
        ),
    ],
    items: Annotated[Items, typer.Option(help="The items to ask.")] = Items.search,
    trial: Annotated[int | None, typer.Option(min=0, help="Of a run, this trial; default: its best.")] = None,
    source: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER: where a source model lies on this machine (repeatable)."),
    ] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights too; from people you trust.")
    ] = False,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.table,
) -> None:
    """Score a model, a recipe or a trial with the objectives of a space, as a search would."""
    from evomerge.cli.export import places
    from evomerge.publish.evaluation import score

    found = score(
        space, what, items=items.value, trial=trial, paths=places(source or []), allow_pickle=allow_pickle
    )
    if format is Format.json:
        typer.echo(json.dumps(_as_json(found), indent=2, ensure_ascii=False))
        return
    stdout.print(_table(found))
    told = f"{found.seconds:.1f} s on {found.device}"
    stderr.print(told, highlight=False, markup=False, soft_wrap=True)


def _table(found: Evaluated) -> Table:
    from rich.markup import escape
    from rich.table import Table

    from evomerge.others_words import plain

    table = Table(title=escape(plain(f"{found.what} on {found.split} items")), title_justify="left")
    for head in ("measure", "metric", "score", "standard error", "items"):
        table.add_column(head, justify="left" if head in ("measure", "metric") else "right")
    for each in found.scores:
        role = "" if each.role == "objective" else f" ({each.role})"
        table.add_row(
            escape(plain(each.measure.name + role)),
            escape(plain(f"{each.measure.metric} {each.measure.arrow}")),
            f"{each.score:.4f}",
            "none" if each.error is None else f"{each.error:.4f}",
            str(each.items),
        )
    return table


def _as_json(found: Evaluated) -> dict[str, object]:
    return {
        "what": found.what,
        "items": found.split,
        "seconds": found.seconds,
        "device": found.device,
        "scores": [
            {
                "measure": each.measure.name,
                "role": each.role,
                "task": each.measure.task,
                "metric": each.measure.metric,
                "filter": each.measure.filter,
                "higher_is_better": each.measure.higher_is_better,
                "score": each.score,
                "standard_error": each.error,
                "items": each.items,
            }
            for each in found.scores
        ],
    }
