"""`evomerge.export`: a trial of a run, or a recipe, as a checkpoint; the command's other half."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evomerge.archive.run import Run, open_run
from evomerge.errors import RecipeError, RequestError
from evomerge.merge.sources import check_known, places_in
from evomerge.publish.checkpoint import write_checkpoint
from evomerge.publish.found import export_trial
from evomerge.publish.push import Destination, destination, push
from evomerge.reading import read_text
from evomerge.recipe import Recipe, from_yaml
from evomerge.recipe.text import LARGEST


def export(
    what: str | Path | Run | Recipe,
    target: str | Path,
    *,
    trial: int | None = None,
    best: str | None = None,
    knee: bool = False,
    paths: Mapping[str, str | Path] | None = None,
    overwrite: bool = False,
    verify: bool = True,
    allow_pickle: bool = False,
    push_to: str | None = None,
    private: bool = False,
    revision: str | None = None,
    name: str | None = None,
) -> Path:
    """Write a checkpoint that `from_pretrained` loads to the folder `target` and return its path.

    `what` is a run or a recipe, as a value or as its folder or file. Of a run, it is the trial of this
    number, the most balanced of the front (`knee`), or the `best` in an objective (default: the first).
    What is written is held to its recorded score unless `verify` is false; a recipe has none, so these
    four are refused for it. `paths` gives folders of source models by name, for those that lie elsewhere
    than the run or recipe says; `allow_pickle` reads sources whose weights are pickled
    (`checkpoints/pickled.py` says what that risks).

    `push_to` is a repository `owner/name` of the hub, to which the folder is uploaded once it is written and
    verified: made if it is not there (`private`, if asked), and onto the branch `revision` (default: main).
    `name` is what the card calls the model (default: as the repository, or else the folder).

    Raises `RequestError` if something asked for does not exist or fit, `ExportError` if the written
    checkpoint does not score as recorded; the target is then as it was. An upload that fails raises
    `ExportError` and leaves the folder.
    """
    to = destination(push_to, private=private, revision=revision)
    found = opened(what) if isinstance(what, str | Path) else what
    if isinstance(found, Run):
        number = chosen(found, trial=trial, best=best, knee=knee)
        written = export_trial(
            found, number, target,
            paths=paths or {}, overwrite=overwrite, verify=verify, allow_pickle=allow_pickle,
            name=name or (to.name if to else None),
        )  # fmt: skip
        return _pushed(written, to)
    _refuse(
        {"--trial": trial is not None, "--best": best is not None, "--knee": knee, "--no-verify": not verify}
    )
    check_known(paths or {}, places_in(found))
    written = write_checkpoint(
        found, target,
        paths=paths, overwrite=overwrite, allow_pickle=allow_pickle, name=name or (to.name if to else None),
    )  # fmt: skip
    return _pushed(written, to)


def _pushed(folder: Path, to: Destination | None) -> Path:
    if to is not None:
        push(folder, to)
    return folder


def opened(path: str | Path, *, storage: str | None = None) -> Run | Recipe:
    """Return the run in a folder (its database at `storage`, if given) or the recipe in a file.

    Raises `RequestError` if it is neither.
    """
    path = Path(path)
    if path.is_dir():
        return open_run(path, storage=storage)
    if not path.is_file():
        raise RequestError(f"{path} is neither a run folder nor a recipe file")
    _refuse({"--storage": storage is not None})
    try:
        return from_yaml(read_text(path, most=LARGEST))
    except RecipeError as error:
        raise RecipeError(f"{path}: {error}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not a recipe: it is not UTF-8 text") from error
    except OSError as error:
        raise RecipeError(f"the recipe {path} cannot be read: {error.strerror}") from error


def check_choice(*, trial: int | None, best: str | None, knee: bool) -> None:
    """Raise `RequestError` if more than one way to choose a trial is asked for."""
    if sum((trial is not None, best is not None, knee)) > 1:
        raise RequestError("choose one of `--trial`, `--best` and `--knee`")


def chosen(run: Run, *, trial: int | None, best: str | None, knee: bool) -> int:
    """Return the number of the trial asked for. Raises `RequestError` if there is none."""
    check_choice(trial=trial, best=best, knee=knee)
    if trial is not None:
        return trial
    if knee:
        return run.knee()
    return run.best(best)


def _refuse(asked: Mapping[str, bool]) -> None:
    options = [f"`{name}`" for name, given in asked.items() if given]
    if options:
        verb = "means" if len(options) == 1 else "mean"
        raise RequestError(
            f"a recipe has neither trials nor scores, so {' and '.join(options)} {verb} nothing"
        )
