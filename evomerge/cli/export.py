"""`evomerge export RUN|RECIPE TARGET`: a recipe as a stock checkpoint."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from evomerge.cli.screen import stderr

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
        typer.Option(help="NAME=FOLDER: where a source model lies on this machine (repeatable)."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a checkpoint at the target.")
    ] = False,
    no_verify: Annotated[
        bool, typer.Option("--no-verify", help="Do not hold the checkpoint to its recorded score.")
    ] = False,
    allow_pickle: Annotated[
        bool, typer.Option("--allow-pickle", help="Read pickled weights too; from people you trust.")
    ] = False,
    storage: Annotated[
        str | None, typer.Option(help="The run's database URL, if it needs a password.")
    ] = None,
    push_to: Annotated[
        str | None,
        typer.Option(metavar="OWNER/NAME", help="Upload the written folder to this repository of the hub."),
    ] = None,
    private: Annotated[bool, typer.Option("--private", help="Make that repository a private one.")] = False,
    revision: Annotated[
        str | None, typer.Option(help="The branch to upload to; default: main.", show_default=False)
    ] = None,
) -> None:
    """Write a trial or a recipe as a checkpoint that `from_pretrained` loads; check a trial's score."""
    from evomerge.publish.public import check_choice, chosen, export, opened
    from evomerge.publish.push import destination, push
    from evomerge.recipe import Recipe

    check_choice(trial=trial, best=best, knee=knee)
    to = destination(push_to, private=private, revision=revision)
    name = to.name if to else None
    paths = places(source or [])
    found = opened(what, storage=storage)
    if isinstance(found, Recipe):
        written = export(
            found, target, trial=trial, best=best, knee=knee,
            paths=paths, overwrite=overwrite, verify=not no_verify, allow_pickle=allow_pickle, name=name,
        )  # fmt: skip
    else:
        number = chosen(found, trial=trial, best=best, knee=knee)
        written = _exported(
            found, number, target, paths,
            overwrite=overwrite, verify=not no_verify, allow_pickle=allow_pickle, name=name,
        )  # fmt: skip
    typer.echo(written)
    if to is not None:
        told = f"Uploading {written} to {to.repo} …"
        stderr.print(told, highlight=False, markup=False, soft_wrap=True)
        typer.echo(push(written, to))


def _exported(
    run: Run,
    number: int,
    target: Path,
    paths: dict[str, str],
    *,
    overwrite: bool,
    verify: bool,
    allow_pickle: bool,
    name: str | None,
) -> Path:
    """Export a trial, say so before and after, and return where it was written."""
    from evomerge.publish.found import export_trial

    def begun() -> None:
        label = run.label(number)
        what = f"trial {number}" + (f" ({label})" if label else "")
        told = f"Exporting {what} of {run.folder.path} …"
        stderr.print(told, highlight=False, markup=False, soft_wrap=True)

    written = export_trial(
        run, number, target,
        paths=paths, overwrite=overwrite, verify=verify, allow_pickle=allow_pickle, begun=begun,
        name=name,
    )  # fmt: skip
    scores = ", ".join(f"{name} {score:.4f}" for name, score in run.scores(number).items())
    told = "The written checkpoint scores as recorded" if verify else "Not scored again; the search recorded"
    stderr.print(f"{told}: {scores}", highlight=False, markup=False, soft_wrap=True)
    return written


def places(sources: list[str]) -> dict[str, str]:
    """Return the folders given as NAME=FOLDER, by name."""
    from evomerge.errors import RequestError

    places: dict[str, str] = {}
    for each in sources:
        name, equals, folder = each.partition("=")
        if not (name and equals and folder):
            raise RequestError(f"`--source` takes NAME=FOLDER, found `{each}`")
        if name in places:
            raise RequestError(f"`--source` gives `{name}` twice: {places[name]} and {folder}")
        places[name] = folder
    return places
