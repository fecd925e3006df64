"""A space's sources on this machine: found, opened, each adapter over the model it was trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypeAlias

from evomerge.archive.record import RunRecord
from evomerge.checkpoints.adapters import adapted_by, check_base, check_whole, open_adapter
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.influence import read_influence
from evomerge.checkpoints.locate import locate, locate_statistics
from evomerge.checkpoints.measured import check_measured_on, open_measured, statistics_name
from evomerge.checkpoints.models import with_statistics
from evomerge.errors import CheckpointError, RequestError
from evomerge.recipe import ModelRef
from evomerge.space import Space
from evomerge.space.document import KeyPath
from evomerge.space.schema import Source

Where: TypeAlias = Callable[[KeyPath], str]
"""The place of a key in the space file, as messages name it."""


@contextmanager
def about(place: str) -> Iterator[None]:
    """Let a `RequestError` begin with the place in the space file that it is about."""
    try:
        yield
    except RequestError as error:
        raise type(error)(f"{place}: {error}") from error


def open_sources(
    space: Space, where: Where, near: Path, known: RunRecord | None, *, allow_pickle: bool
) -> tuple[dict[str, Checkpoint], dict[str, str]]:
    """Return the models the merge uses, opened, and which of them each adapter changes.

    Raises a `RequestError` that begins with the place in the space of the source it is about.
    """
    base = space.merge.base
    folders: dict[str, Path] = {}
    adapts: dict[str, str] = {}

    def find(name: str) -> None:
        if name in folders:
            return
        source = space.sources[name]
        with about(where(("sources", name))):
            folder = _where_it_lay(name, source, known, name)
            folders[name] = folder or locate(
                source.source, revision=source.revision, near=near, allow_pickle=allow_pickle
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
    opened = _opened(space, where, folders, adapts, allow_pickle=allow_pickle)
    models = {}
    for name in folders:
        with about(where(("sources", name))):
            files = _statistics(name, space.sources[name], near, known)
            models[name] = with_statistics(opened[name], name, files)
    return models, adapts


def _statistics(name: str, source: Source, near: Path, known: RunRecord | None) -> dict[str, Path]:
    """Return the statistics files that a source names, where a known record has them if they are there."""
    asked = ModelRef(source=source.source, fisher=source.fisher, gram=source.gram).measured
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
    *,
    allow_pickle: bool,
) -> dict[str, Checkpoint]:
    """Return the models, whole ones first; an adapter by the merge's base must say that it is for it."""
    opened: dict[str, Checkpoint] = {}
    for name in sorted(folders, key=lambda name: name in adapts):
        with about(where(("sources", name))):
            if name not in adapts:
                opened[name] = open_checkpoint(folders[name], allow_pickle=allow_pickle)
                continue
            base = opened[adapts[name]]
            if space.sources[name].adapts is None:
                check_base(name, folders[name], adapts[name], space.sources[adapts[name]].source, base)
            opened[name] = open_adapter(folders[name], base, allow_pickle=allow_pickle)
    return opened


def _where_it_lay(name: str, source: Source, known: RunRecord | None, key: str) -> Path | None:
    """Return the folder or file a known record has for the source under `key`, if it is still there."""
    if known is None or known.space.sources.get(name) != source or key not in known.paths:
        return None
    place = Path(known.paths[key])
    return place if place.exists() else None
