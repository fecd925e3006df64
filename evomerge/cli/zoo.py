"""`evomerge zoo`: build the small models that examples and tests use, or list the shipped ones."""

import json
import logging
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True, help="Small models trained here from nothing, with the merging problem in them."
)


@app.command("build")
def build_command(
    out: Annotated[Path, typer.Option(help="Folder to make.")] = Path("zoo"),
    seed: Annotated[int, typer.Option(help="Training seed; the tasks are the same for every seed.")] = 0,
    threads: Annotated[
        int, typer.Option(min=1, help="Threads of the base, and experts trained at a time.")
    ] = 2,
    only: Annotated[
        list[str] | None, typer.Option(help="An expert to train (repeatable). The base always is.")
    ] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an existing zoo.")] = False,
) -> None:
    """Train the base and its experts and write them with their lm-eval tasks: a few minutes on two cores."""
    from evomerge.zoo.build import build

    _talk()
    typer.echo(build(out, seed=seed, threads=threads, only=only or (), overwrite=overwrite))


@app.command("list")
def list_command(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list instead of lines.")] = False,
) -> None:
    """Print the shipped models: name, what it knows, parameters, folder."""
    from evomerge.zoo.catalog import entries

    if as_json:
        typer.echo(
            json.dumps([asdict(entry) | {"folder": str(entry.folder)} for entry in entries()], indent=2)
        )
        return
    for entry in entries():
        typer.echo(
            f"{entry.name:6} {entry.knows} ({entry.parameters / 1e6:.2f} M parameters, {entry.folder})"
        )


def _talk() -> None:
    """Show progress on stderr."""
    logger = logging.getLogger("evomerge.zoo")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # the command line's own handler shows warnings only
