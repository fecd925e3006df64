"""`evomerge methods [NAME]`: what there is to merge with, and which parameters it has."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.screen import stdout

if TYPE_CHECKING:
    from evomerge.report.methods import MethodPage


class Format(StrEnum):
    """How to print it."""

    table = "table"
    md = "md"


def command(
    name: Annotated[
        str | None, typer.Argument(help="A merge method; without one, all are listed.", show_default=False)
    ] = None,
    format: Annotated[
        Format, typer.Option(help="A table, or the reference page of all methods.")
    ] = Format.table,
) -> None:
    """List the merge methods, or explain one: source, parameters, ranges, cost."""
    from evomerge.report.methods import method_page, method_pages, reference

    if format is Format.md:
        typer.echo(reference(), nl=False)
    elif name is None:
        _list(method_pages())
    else:
        _explain(method_page(name))


def _list(pages: tuple[MethodPage, ...]) -> None:
    from rich.table import Table

    table = Table(box=None)
    for heading in ("method", "takes", "in one line"):
        table.add_column(heading, no_wrap=heading != "in one line")
    for page in pages:
        table.add_row(page.name, page.takes, page.title)
    stdout.print(table)


def _explain(page: MethodPage) -> None:
    from rich.markup import escape
    from rich.table import Table

    from evomerge.report.methods import parameter_row

    stdout.print(f"[bold]{page.name}[/]  {escape(page.title)}\n", highlight=False)
    if page.source:
        stdout.print(f"{escape(page.source)}\n", highlight=False)
    for heading, fact in page.facts.items():
        stdout.print(f"{heading:12}{escape(fact)}", highlight=False)
    table = Table(box=None, pad_edge=False)
    for heading in ("parameter", "default", "searched", "also called", "meaning"):
        table.add_column(heading)
    for parameter in page.parameters:
        table.add_row(*map(escape, parameter_row(parameter)))
    if page.parameters:
        stdout.print()
        stdout.print(table)
