"""`evomerge.search`: the whole search as one Python call, and its first half for the command line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from evomerge.archive.folder import RunFolder, latest, next_free, resolved
from evomerge.archive.record import RunRecord
from evomerge.archive.run import Run
from evomerge.controller.check import Findings, examine
from evomerge.controller.search import Options, Prepared, check_space, execute, resume_search, start_search
from evomerge.controller.tally import Snapshot
from evomerge.space import Space, SpaceFile, read_space
from evomerge.space.load import stated_space

RUNS = Path("runs")
"""Where runs go unless told otherwise, in the working directory."""


def prepare(
    space: Path | Space, *, run: Path | None, resume: bool, changes: dict[str, Any], options: Options
) -> Prepared:
    """Return a search ready to begin: a new one, or the one to resume.

    `changes` replace keys of the space; a resumed run keeps those it was started with. Raises a
    `RequestError`; nothing is written yet but checkpoints of earlier runs that are sources.
    """
    file = _read(space, changes)
    if resume and run is None and isinstance(space, Path) and RunFolder(space.parent).begun:
        run = space.parent  # the copy of the space in a run folder
    if resume:
        folder = RunFolder(resolved(run or latest(RUNS, file.space.name)))
        file = _read(space, {**folder.read_record().changes, **changes})
        return resume_search(file, folder, options=options)
    folder = RunFolder(resolved(run or next_free(RUNS, file.space.name)))
    return start_search(file, folder, options=options)


def check(space: Path, *, changes: dict[str, Any], options: Options) -> RunRecord:
    """Return the record that a search of the space would begin with; nothing is searched.

    `changes` replace keys of the space. Raises a `RequestError` where a search would; nothing is written but
    checkpoints of earlier runs that are sources.
    """
    return check_space(_read(space, changes), options=options)


def look_over(
    space: Path, *, changes: dict[str, Any], options: Options, run: Path | None = None, dry: bool = True
) -> Findings | tuple[str, ...]:
    """Return all that can be known of a search of the space before it, or why it could not begin.

    `run` is the folder it would write (default: a new one in `runs/`). With `dry` a candidate is built and
    asked a few items. Raises `SpaceError` for a file that is no space.
    """
    file = _read(space, changes)
    folder = resolved(run or next_free(RUNS, file.space.name))
    return examine(file, options=options, folder=folder, target=Path.cwd(), dry=dry)


def search(
    space: str | Path | Space,
    *,
    budget: int | None = None,
    run: str | Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    ray_address: str | None = None,
    serial: bool = False,
    sampler: str | None = None,
    seed: int | None = None,
    storage: str | None = None,
    time_limit: float | None = None,
    candidate_time_limit: float | None = None,
    allow_pickle: bool = False,
    gpus_per_worker: float | None = None,
    path_map: Sequence[str] = (),
) -> Run:
    """Search a space, given as a file or as `load_space` returns it, and return the run.

    The arguments are the options of `evomerge search`: `run` is the folder to write (default: a new one in
    `runs/`, named after the space); `budget`, `sampler`, `seed` and `candidate_time_limit` (in seconds)
    replace the space's own; `workers` counts evaluators (default: one per GPU, else per CPU), `ray_address`
    joins a cluster and `serial` evaluates in this process; `storage` is a database URL instead of the run's
    journal; `time_limit`, of all, in seconds; `allow_pickle` reads sources whose weights are pickled
    (`checkpoints/pickled.py` says what that risks);
    `gpus_per_worker` lets workers share GPUs (0.25), or use none (0); `path_map` are texts `HERE=THERE` that
    say where the nodes of the cluster have the folders of sources and tasks.

    A source that is a trial of an earlier run is written as a checkpoint into that run's folder, unless it
    has been.

    Raises a `RequestError` before the run folder is written, and `WorkError` if nothing could be scored.
    """
    options = Options(
        workers=workers,
        ray_address=ray_address,
        serial=serial,
        storage=storage,
        time_limit=time_limit,
        allow_pickle=allow_pickle,
        gpus_per_worker=gpus_per_worker,
        path_map=tuple(path_map),
    )
    prepared = prepare(
        space if isinstance(space, Space) else Path(space),
        run=Path(run) if run is not None else None,
        resume=resume,
        changes=given(budget=budget, sampler=sampler, seed=seed, candidate_time_limit=candidate_time_limit),
        options=options,
    )
    execute(prepared, options=options, observe=_look_away)
    return Run(prepared.folder, prepared.record, options.storage)


def given(**keys: Any) -> dict[str, Any]:
    """Return the keys that have a value."""
    return {key: value for key, value in keys.items() if value is not None}


def _read(space: Path | Space, changes: dict[str, Any]) -> SpaceFile:
    return stated_space(space, changes) if isinstance(space, Space) else read_space(space, changes)


def _look_away(snapshot: Snapshot) -> None:
    del snapshot
