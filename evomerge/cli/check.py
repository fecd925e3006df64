"""`evomerge check SPACE`: whether a space can be searched, what that takes, and what it can show."""

from __future__ import annotations

import json
import textwrap
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.screen import LogLevel, said_error, set_log_level, stderr, stdout
from evomerge.errors import SpaceError

if TYPE_CHECKING:
    from evomerge.controller.check import Findings


class Format(StrEnum):
    """How to print it."""

    text = "text"
    json = "json"


def command(
    space: Annotated[Path, typer.Argument(help="The space file (YAML).", show_default=False)],
    budget: Annotated[
        int | None, typer.Option(min=1, help="Candidates in all; default: the space's.")
    ] = None,
    run: Annotated[
        Path | None, typer.Option(help="The run folder to be; default: a new one in runs/.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Evaluators; default: one per GPU, else per CPU.")
    ] = None,
    serial: Annotated[bool, typer.Option("--serial", help="As if evaluated in one process.")] = False,
    sampler: Annotated[str | None, typer.Option(help="A sampler instead of the space's.")] = None,
    seed: Annotated[int | None, typer.Option(min=0, help="Seed; default: the space's.")] = None,
    dry_run: Annotated[
        bool, typer.Option(help="Build a candidate and ask it a few items, to tell how long a search takes.")
    ] = True,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights too; from people you trust.")
    ] = False,
    format: Annotated[Format, typer.Option(help="How to print it.")] = Format.text,
    log_level: Annotated[LogLevel, typer.Option(help="What to tell on stderr.")] = LogLevel.warning,
) -> None:
    """Check a space as a search would: sources, tasks, licences, memory, time, what its items can show.

    Nothing is searched. The exit code is 2 if a search could not work, with the reasons on stderr; what works
    and is unwise is listed as a warning.
    """
    from evomerge.controller.public import given, look_over
    from evomerge.controller.search import Options
    from evomerge.report.checked import to_json

    def told(said: str) -> None:
        stderr.print(said, highlight=False, markup=False, soft_wrap=True)

    set_log_level(log_level)
    changes = given(budget=budget, sampler=sampler, seed=seed)
    options = Options(workers=workers, serial=serial, allow_pickle=allow_pickle, tell=told)
    found: Findings | tuple[str, ...]
    try:
        found = look_over(space, changes=changes, options=options, run=run, dry=dry_run)
    except SpaceError as error:  # which has a line for each mistake
        found = tuple(str(error).split("\n"))
    problems = found if isinstance(found, tuple) else found.problems
    if format is Format.json:
        typer.echo(json.dumps(to_json(found), indent=2, ensure_ascii=False))
    elif not isinstance(found, tuple):
        _show(found)
    for problem in problems:
        said_error(problem)
    if problems:
        raise typer.Exit(2)


def _show(found: Findings) -> None:
    """Print the groups, the warnings, and whether a search could begin."""
    from evomerge.report.checked import sections

    for section in sections(found):
        stdout.print(f"[bold]{section.heading}[/]", highlight=False)
        for each in section.content:
            shown = _wrapped(each) if isinstance(each, str) else each
            stdout.print(shown, highlight=False, markup=False, soft_wrap=False)
        stdout.print()
    if found.warnings:
        stdout.print("[bold yellow]Warnings[/]", highlight=False)
        for warning in found.warnings:
            stdout.print(_wrapped(f"• {warning}"), highlight=False, markup=False, soft_wrap=False)
        stdout.print()
    if not found.problems:
        count = len(found.warnings)
        noted = f", with {count} warning{'s' * (count > 1)}" if count else ""
        stdout.print(f"This space can be searched{noted}.", highlight=False)


def _wrapped(sentence: str) -> str:
    """Return a sentence in lines that the screen holds, those after the first set in by two columns."""
    inside = len(sentence) - len(sentence.lstrip()) + 2
    return textwrap.fill(
        sentence, stdout.width, subsequent_indent=" " * inside, break_long_words=False, break_on_hyphens=False
    )
