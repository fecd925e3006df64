"""`evomerge convert FILE [TARGET]`: mergekit's files in our form, and recipes in mergekit's."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from evomerge.cli.screen import stderr


class Form(StrEnum):
    """What to convert to."""

    recipe = "recipe"
    mergekit = "mergekit"
    space = "space"


def command(
    file: Annotated[
        Path,
        typer.Argument(
            help="A recipe of evomerge or mergekit, or a config of mergekit-evolve (YAML).",
            show_default=False,
        ),
    ],
    target: Annotated[
        Path | None, typer.Argument(help="The file to write; default: stdout.", show_default=False)
    ] = None,
    to: Annotated[Form | None, typer.Option(help="The form it must become; default: what it is not.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file at the target.")] = False,
) -> None:
    """Convert between recipes of mergekit and of evomerge, or a config of mergekit-evolve to a space."""
    from evomerge.archive.files import write_text
    from evomerge.errors import RequestError
    from evomerge.mergekit.public import convert

    if target is not None and target.exists() and not overwrite:
        raise RequestError(f"{target} exists; choose another file, or replace it with `--overwrite`")
    converted = convert(file, to=None if to is None else to.value)
    for note in converted.notes:
        stderr.print(f"note: {note}", highlight=False, markup=False, soft_wrap=True)
    if target is None:
        typer.echo(converted.text, nl=False)
    else:
        write_text(target, converted.text)
        typer.echo(target)
