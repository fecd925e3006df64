"""`evomerge check SPACE`: whether a space can be searched, and what its items and budget can show."""

from __future__ import annotations

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.screen import stderr, stdout


class Format(StrEnum):
    """How to print it."""

    text = "text"
    json = "json"


def command(
    space: Annotated[Path, typer.Argument(help="The space file (YAML).", show_default=False)],
    budget: Annotated[
        int | None, typer.Option(min=1, help="Candidates in all; default: the space's.")
    ] = None,
    sampler: Annotated[str | None, typer.Option(help="A sampler instead of the space's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; default: the space's.")] = None,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights too; from people you trust.")
    ] = False,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.text,
) -> None:
    """Check a space as a search would, and tell which gains its items can show; nothing is searched."""
    from dataclasses import asdict

    from evomerge.controller.public import check, given
    from evomerge.controller.search import Options
    from evomerge.report.prospects import objective_table, prospects, sentences

    def told(said: str) -> None:
        stderr.print(said, highlight=False, markup=False, soft_wrap=True)

    changes = given(budget=budget, sampler=sampler, seed=seed)
    record = check(space, changes=changes, options=Options(allow_pickle=allow_pickle, tell=told))
    found = prospects(record)
    if format is Format.json:
        typer.echo(json.dumps(asdict(found), indent=2, ensure_ascii=False))
    else:
        for sentence in sentences(found):
            stdout.print(sentence, highlight=False, markup=False)
        for each in found.objectives:
            if each.shows:
                stdout.print(objective_table(each, found.budget))
            for note in each.notes:
                stdout.print(note, highlight=False, markup=False)
