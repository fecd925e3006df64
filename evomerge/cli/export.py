"""`evomerge export RUN|RECIPE TARGET`: a recipe as a stock checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.screen import stderr, stdout

if TYPE_CHECKING:
    from evomerge.archive.run import Run


def command(
    what: Annotated[Path, typer.Argument(help="A run folder, or a recipe file.", show_default=False)],
    target: Annotated[Path, typer.Argument(help="The folder to write.", show_default=False)],
    trial: Annotated[int | None, typer.Option(min=0, help="Export this trial.")] = None,
    best: Annotated[
        str | None, typer.Option(help="Export the best of this objective; default: the first.")
    ] = None,
    knee: Annotated[
        bool, typer.Option("--knee", help="Export the most balanced member of the front.")
    ] = False,
    source: Annotated[
        list[str] | None,
        typer.Option(help="NAME=FOLDER: where a recipe's model lies on this machine."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint at the target.")
    ] = False,
    storage: Annotated[
        str | None, typer.Option(help="The run's database URL, if it needs a password.")
    ] = None,
) -> None:
    """Write a recipe as a checkpoint that `from_pretrained` loads, and check its score."""
    from evomerge.archive.run import open_run
    from evomerge.errors import RequestError
    from evomerge.publish.checkpoint import check_target, export
    from evomerge.publish.found import export_trial
    from evomerge.recipe import from_yaml

    if sum((trial is not None, best is not None, knee)) > 1:
        raise RequestError("choose one of `--trial`, `--best` and `--knee`")
    if what.is_dir():
        run = open_run(what, storage=storage)
        number = _number(run, trial, best, knee)
        scores = ", ".join(f"{name} {score:.4f}" for name, score in run.scores(number).items())
        check_target(target.absolute(), overwrite)
        stderr.print(f"Exporting trial {number} of {what} …", highlight=False, soft_wrap=True)
        written = export_trial(run, number, target, overwrite=overwrite)
        stderr.print(f"The written checkpoint scores as recorded: {scores}", highlight=False)
    elif what.is_file():
        recipe = from_yaml(what.read_text(encoding="utf-8"))
        written = export(recipe, target, paths=_places(source or []), overwrite=overwrite)
    else:
        raise RequestError(f"{what} is neither a run folder nor a recipe file")
    stdout.print(str(written), highlight=False)


def _places(sources: list[str]) -> dict[str, str]:
    """Return the folders given as NAME=FOLDER, by name."""
    from evomerge.errors import RequestError

    places = {}
    for each in sources:
        name, equals, folder = each.partition("=")
        if not (name and equals and folder):
            raise RequestError(f"`--source` takes NAME=FOLDER, found `{each}`")
        places[name] = folder
    return places


def _number(run: Run, trial: int | None, best: str | None, knee: bool) -> int:
    if trial is not None:
        return trial
    if knee:
        run.best()  # says so if there is no front
        return run.archive.knee().trial
    return run.best(best)
