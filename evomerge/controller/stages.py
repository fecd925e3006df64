"""A source that is a trial of an earlier run: a checkpoint, written once, in that run's folder.

From then on it is a source like any other: opened where it lies, pinned by its content. It is planned and
written as an export of the trial is, so it is the model that was scored.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.archive.database import is_redacted
from evomerge.archive.files import clear_beside, folder_beside, replace_folder, write_json, writing
from evomerge.archive.folder import MADE_FILE, trial_at
from evomerge.archive.run import Run, open_run
from evomerge.checkpoints.digest import digest
from evomerge.checkpoints.finite import check_finite
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.locate import locate_run
from evomerge.errors import CheckpointError, RequestError, RunError
from evomerge.merge.planning import compile_plan
from evomerge.merge.sources import Paths, open_sources, pinned
from evomerge.recipe import Recipe, to_yaml
from evomerge.recipe.text import RECIPE_FILE
from evomerge.space.schema import Source

if TYPE_CHECKING:
    from evomerge.merge.plan import Plan

Tell = Callable[[str], object]
"""Is told in a sentence what takes a while."""

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A scored trial of an earlier run."""

    run: Run
    trial: int

    @property
    def folder(self) -> Path:
        """Where its checkpoint lies, or is to be written."""
        return self.run.folder.checkpoint(self.trial)


def earlier_run(path: str, near: Path) -> Run:
    """Return the run in a folder that a source names. Raises `RunError` if none can be read there."""
    run = open_run(locate_run(path, near=near))
    if is_redacted(run.record.storage or ""):
        raise RunError(
            f"the trials of {run.folder.path} lie in a database that asks for a password; write the one you "
            f"want with `evomerge export {run.folder.path} FOLDER --storage URL`, and name that folder as "
            "`source`"
        )
    return run


def picked(run: Run, source: Source) -> Stage:
    """Return the trial of the run that the source picks. Raises `RunError` if there is none with a score."""
    if isinstance(source.pick, int):
        number = source.pick
    else:
        number = run.knee() if source.pick == "knee" else run.best(source.objective)
    return numbered(run, number)


def numbered(run: Run, number: int) -> Stage:
    """Return the trial of this number. Raises `RunError` if it has no score, or cannot be rebuilt."""
    run.scores(number)
    run.recipe(number)
    return Stage(run=run, trial=number)


def write_stage(stage: Stage, *, allow_pickle: bool = False, tell: Tell = _log.info) -> Path:
    """Return the folder of the trial's checkpoint, which is written unless it is there.

    `tell` hears of it when all is checked and the writing begins. Raises `RequestError` if the run's sources
    are not to be had any more, the disk is too small or cannot be written, or the folder holds something
    else; `ExportError` if the writing fails.
    """
    recipe = stage.run.recipe(stage.trial)
    if stage.folder.exists():
        _check_kept(stage.folder, recipe)
        return stage.folder
    paths, allow_pickle = stage.run.record.paths, allow_pickle or stage.run.record.allow_pickle
    write_missing(recipe, paths, allow_pickle=allow_pickle, tell=tell)
    try:
        sources = open_sources(recipe, paths, allow_pickle=allow_pickle)
    except RequestError as error:
        raise type(error)(
            f"trial {stage.trial} of {stage.run.folder.path}: {error}; or {_by_hand(stage)}"
        ) from error
    recipe = pinned(recipe, sources, paths)
    plan = compile_plan(recipe, sources)
    check_finite(sources)
    _write(stage, recipe, plan, sources, tell)
    return stage.folder


def write_missing(recipe: Recipe, paths: Paths, *, allow_pickle: bool, tell: Tell = _log.info) -> None:
    """Write again the checkpoints of earlier runs that the recipe reads, where they are gone.

    `paths` says where its models lie (default: where their sources lead). Whether they are what the recipe
    pins is not looked at.
    """
    for name in recipe.used:
        place = Path(paths.get(name, recipe.models[name].source))
        found = None if place.exists() else trial_at(place)
        if found is None or not found[0].begun:
            continue
        try:
            again = numbered(open_run(found[0].path), found[1])
            write_stage(again, allow_pickle=allow_pickle, tell=tell)
        except RequestError as error:
            raise type(error)(f"`{name}` is gone from {place}: {error}") from error


def _write(stage: Stage, recipe: Recipe, plan: Plan, sources: Mapping[str, Checkpoint], tell: Tell) -> None:
    from evomerge.evaluate.evaluator import device_named  # transformers takes a second to import
    from evomerge.merge.model_folder import check_room, write_model

    run, target = stage.run.folder, stage.folder
    clear_beside(target)  # before looking how much room there is
    check_room(run.path, plan)
    with _alone_in(target.parent, stage):
        if target.exists():  # another search has just written it
            return
        tell(f"Writing trial {stage.trial} of {run.path} as a checkpoint ({_size(plan.nbytes)}) …")
        with folder_beside(target) as staging, writing(target):
            write_model(plan, sources, staging, device=device_named("auto"))
            (staging / RECIPE_FILE).write_text(to_yaml(recipe), encoding="utf-8")
            content = digest(open_checkpoint(staging))
            made = {"run": run.name, "trial": stage.trial, "recipe": recipe.key, "digest": content}
            write_json(staging / MADE_FILE, made)
            replace_folder(staging, target)


@contextmanager
def _alone_in(folder: Path, stage: Stage) -> Iterator[None]:
    """Make the folder unless it is there, and hold it once no other process does."""
    try:
        folder.mkdir(exist_ok=True)
        lock = (folder / "lock").open("a")
    except OSError as error:
        raise RunError(
            f"no checkpoint can be written into {folder} ({error.strerror}); {_by_hand(stage)}"
        ) from error
    with lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _size(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e9 else f"{nbytes / 1e6:.0f} MB"


def _by_hand(stage: Stage) -> str:
    command = f"evomerge export {stage.run.folder.path} FOLDER --trial {stage.trial}"
    return f"write it elsewhere with `{command}`, and name that folder as `source`"


def _check_kept(folder: Path, recipe: Recipe) -> None:
    """Raise `RunError` unless the folder holds what was written there by `recipe`."""
    try:
        made: dict[str, Any] = json.loads((folder / MADE_FILE).read_text(encoding="utf-8"))
        if (made["recipe"], made["digest"]) == (recipe.key, digest(open_checkpoint(folder))):
            return
    except (OSError, ValueError, KeyError, TypeError, CheckpointError) as error:
        _log.info("%s: %s", folder, error)
    raise RunError(f"{folder} is not as evomerge wrote it; delete it, and it is written again")
