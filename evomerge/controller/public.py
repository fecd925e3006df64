"""`evomerge.search`: the whole search as one Python call, and its first half for the command line."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from evomerge.archive.folder import RunFolder, latest, next_free
from evomerge.archive.run import Run
from evomerge.controller.search import Options, Prepared, execute, resume, start
from evomerge.controller.tally import Snapshot
from evomerge.space import read_space

RUNS = Path("runs")
"""Where runs go unless told otherwise, in the working directory."""


def prepare(
    space: Path,
    *,
    run: Path | None,
    resuming: bool,
    changes: Mapping[str, Any],
    options: Options,
) -> Prepared:
    """Return a search ready to begin: a new one, or the one to resume.

    `changes` replace keys of the space; a resumed run keeps those it was started with. Raises a
    `RequestError`; nothing is written yet.
    """
    file = read_space(space, changes)
    if resuming:
        folder = RunFolder((run or latest(RUNS, file.space.name)).absolute())
        file = read_space(space, {**folder.read_record().changes, **changes})
        return resume(file, folder, options=options)
    return start(file, RunFolder((run or next_free(RUNS, file.space.name)).absolute()), options=options)


def search(
    space: str | Path,
    *,
    run: str | Path | None = None,
    resume: bool = False,
    options: Options | None = None,
    **changes: Any,
) -> Run:
    """Search the space in a file and return the run.

    `run` is the folder to write (default: a new one in `runs/`, named after the space); `changes` replace
    keys of the space, such as `budget=50`. Raises a `RequestError` before anything is written, and
    `WorkError` if nothing could be scored.
    """
    options = options or Options()
    prepared = prepare(
        Path(space),
        run=Path(run) if run else None,
        resuming=resume,
        changes=changes,
        options=options,
    )
    execute(prepared, options=options, observe=_look_away)
    return Run(prepared.folder, prepared.record, options.storage)


def _look_away(snapshot: Snapshot) -> None:
    del snapshot
