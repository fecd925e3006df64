"""A space's sources on this machine: found, opened, each adapter over the model it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

from evomerge.archive.folder import trial_at
from evomerge.archive.record import RunRecord
from evomerge.archive.run import open_run
from evomerge.checkpoints.adapters import adapted_by, check_base, check_whole, open_adapter
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.influence import read_influence
from evomerge.checkpoints.locate import locate, locate_statistics
from evomerge.checkpoints.measured import check_measured_on, open_measured, statistics_name
from evomerge.checkpoints.models import with_statistics
from evomerge.controller.stages import Stage, Tell, earlier_run, numbered, picked, write_stage
from evomerge.errors import CheckpointError, RequestError
from evomerge.recipe import ModelRef
from evomerge.space import Space
from evomerge.space.document import KeyPath
from evomerge.space.schema import Source

Where: TypeAlias = Callable[[KeyPath], str]
"""The place of a key in the space file, as messages name it."""


@contextmanager
def about(place: str) -> Iterator[None]:
    """Let a `RequestError` begin with the place in the space file that it is about.

    A file that cannot be opened or a path that leads nowhere is such a mistake, too.
    """
    try:
        yield
    except OSError as error:
        if error.filename is None:
            raise
        raise CheckpointError(f"{place}: {error.filename} cannot be read: {error.strerror}") from error
    except RequestError as error:
        raise type(error)(f"{place}: {error}") from error


def open_sources(
    space: Space,
    where: Where,
    near: Path,
    known: RunRecord | None,
    *,
    allow_pickle: bool,
    ready: Callable[[], object],
    tell: Tell,
) -> tuple[dict[str, Checkpoint], dict[str, str]]:
    """Return the models the merge uses, opened, and which of them each adapter changes.

    A trial of an earlier run is written as a checkpoint unless it has been; `ready` is called before, and
    `tell` hears of it. Raises a `RequestError` that begins with the place in the space of the source it is
    about.
    """
    base = space.merge.base
    folders: dict[str, Path] = {}
    adapts: dict[str, str] = {}
    stages: dict[str, Stage] = {}

    def find(name: str) -> None:
        if name in folders:
            return
        source = space.sources[name]
        folder = _where_it_lay(name, source, known, name)
        if folder is None and source.run is not None:
            stages[name] = _stage(name, source, where, near, known)
            folder = stages[name].folder
        with about(where(("sources", name))):
            folders[name] = folder or locate(
                source.stated, revision=source.revision, near=near, allow_pickle=allow_pickle
            )

    for name in space.used:
        find(name)
        with about(where(("sources", name))):
            over = adapted_by(name, folders[name], space.sources[name].adapts, base)
        if over is not None:
            adapts[name] = over
            find(over)
            with about(where(("sources", name))):
                check_whole(name, over, folders[over])

    def write(name: str) -> None:
        if not stages[name].folder.exists():
            ready()
        with about(where(("sources", name))):
            write_stage(stages[name], allow_pickle=allow_pickle, tell=tell)

    writes = {name: partial(write, name) for name in stages}
    opened = _opened(space, where, folders, adapts, writes, allow_pickle=allow_pickle)
    models = {}
    for name in folders:
        with about(where(("sources", name))):
            files = _statistics(name, space.sources[name], near, known)
            models[name] = with_statistics(opened[name], name, files)
    return models, adapts


def _statistics(name: str, source: Source, near: Path, known: RunRecord | None) -> dict[str, Path]:
    """Return the statistics files that a source names, where a known record has them if they are there."""
    asked = ModelRef(source=source.stated, fisher=source.fisher, gram=source.gram).measured
    places = {}
    for kind, (path, _) in asked.items():
        key = statistics_name(name, kind)
        places[key] = _where_it_lay(name, source, known, key) or locate_statistics(path, near=near)
    return places


def read_influences(
    space: Space,
    where: Where,
    near: Path,
    known: RunRecord | None,
    *,
    checkpoints: Mapping[str, Checkpoint],
    content: Mapping[str, str],
) -> dict[str, tuple[float, ...]]:
    """Return the block influence of each layer of the sources that name a file of it.

    A file that is no longer there is not needed: a known record has its numbers. `content` are the models'
    digests. Raises `CheckpointError` for a file that is missing, broken or of another model.
    """
    found = {}
    for name, checkpoint in checkpoints.items():
        source = space.sources[name]
        if source.influence is None:
            continue
        with about(where(("sources", name, "influence"))):
            pinned = known.influence.get(name) if known and known.space.sources.get(name) == source else None
            try:
                file = locate_statistics(source.influence, near=near)
            except CheckpointError:
                if pinned is None:
                    raise
                found[name] = pinned
            else:
                found[name] = _influence_in(file, name, checkpoint.structure.layers, content)
    return found


def _influence_in(file: Path, name: str, layers: int, content: Mapping[str, str]) -> tuple[float, ...]:
    measured = open_measured(file, "influence")
    check_measured_on(measured, name, content)
    found = read_influence(measured)
    if len(found) != layers:
        raise CheckpointError(
            f"{file} holds the influence of {len(found)} layers, and `{name}` has {layers}; "
            "measure it again with `evomerge measure influence`"
        )
    return found


def _opened(
    space: Space,
    where: Where,
    folders: Mapping[str, Path],
    adapts: Mapping[str, str],
    writes: Mapping[str, Callable[[], None]],
    *,
    allow_pickle: bool,
) -> dict[str, Checkpoint]:
    """Return the models, whole ones first; an adapter by the merge's base must say that it is for it.

    `writes` are called for models that may have to be written first, once the other whole ones are opened.
    """
    opened: dict[str, Checkpoint] = {}
    for name in sorted(folders, key=lambda name: (name in adapts, name in writes)):
        if name in writes:
            writes[name]()
        with about(where(("sources", name))):
            if name not in adapts:
                opened[name] = open_checkpoint(folders[name], allow_pickle=allow_pickle)
                continue
            base = opened[adapts[name]]
            if space.sources[name].adapts is None:
                check_base(name, folders[name], adapts[name], space.sources[adapts[name]].stated, base)
            opened[name] = open_adapter(folders[name], base, allow_pickle=allow_pickle)
    return opened


def _where_it_lay(name: str, source: Source, known: RunRecord | None, key: str) -> Path | None:
    """Return the folder or file a known record has for the source under `key`, if it is still there."""
    place = _known_place(name, source, known, key)
    return place if place is not None and place.exists() else None


def _known_place(name: str, source: Source, known: RunRecord | None, key: str) -> Path | None:
    if known is None or known.space.sources.get(name) != source or key not in known.paths:
        return None
    return Path(known.paths[key])


def _stage(name: str, source: Source, where: Where, near: Path, known: RunRecord | None) -> Stage:
    """Return the trial that a source is: the one it was in a known record, or the one it picks now."""
    place = _known_place(name, source, known, name)
    before = trial_at(place) if place is not None else None
    with about(where(("sources", name, "run"))):
        if before is not None and before[0].begun:
            return numbered(open_run(before[0].path), before[1])
        run = earlier_run(source.stated, near)
        if before is not None:
            return numbered(run, before[1])
    with about(where(("sources", name, "objective" if source.objective else "pick"))):
        return picked(run, source)
