"""What a search reads, file by file, so that the nodes of a cluster can find it or be sent it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

from evomerge.checkpoints.digest import PROCESSOR_FILES, folder_digest
from evomerge.checkpoints.folder import ADAPTER_CONFIG, Checkpoint
from evomerge.checkpoints.locate import ZOO
from evomerge.checkpoints.models import open_models
from evomerge.checkpoints.tokenizer import CARRIED
from evomerge.errors import RequestError
from evomerge.evaluate.brief import Brief

TASKS = "the task folder"
"""What goes by no name in a brief."""

_BESIDE = (
    "config.json",
    "generation_config.json",
    "model.safetensors.index.json",
    "pytorch_model.bin.index.json",
    *CARRIED,
    *PROCESSOR_FILES,
)
_MOST_TASK_BYTES = 2 << 30

Kind: TypeAlias = Literal["model", "adapter", "statistics", "tasks"]
PathMap: TypeAlias = Sequence[tuple[str, str]]
"""Folders here, and where nodes may have them."""


@dataclass(frozen=True, kw_only=True)
class Item:
    """A file by its name in its folder, and what tells it from another without reading it."""

    name: str
    size: int
    changed: int
    inode: int


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """The files of one source, of statistics or of the tasks, in a `folder` of the controller's machine.

    An adapter is known by its digest together with that of the model `over` which it stands.
    """

    name: str
    kind: Kind
    folder: str
    digest: str
    items: tuple[Item, ...]
    over: str | None = None

    @property
    def place(self) -> Path:
        """What a brief names: the folder, or of statistics the file."""
        return self.place_in(Path(self.folder))

    def place_in(self, folder: Path) -> Path:
        """Return what a brief names where the files lie in `folder`."""
        return folder / self.items[0].name if self.kind == "statistics" else folder

    @property
    def nbytes(self) -> int:
        """The size of all files."""
        return sum(item.size for item in self.items)


@dataclass(frozen=True, kw_only=True)
class Supply:
    """All that a search reads, in the order it can be checked in: models before their adapters.

    `zoo` is where the controller has the built-in models and tasks; nodes may have installed them elsewhere.
    """

    parcels: tuple[Parcel, ...]
    path_map: tuple[tuple[str, str], ...]
    zoo: str
    allow_pickle: bool


def supply_of(brief: Brief, path_map: PathMap) -> Supply:
    """Return what the brief's search reads. Raises `RequestError` if the task folder is no small one."""
    models = open_models(brief.checkpoints, brief.adapts, allow_pickle=brief.allow_pickle)
    parcels = [_of_model(name, model, brief) for name, model in models.items()]
    parcels.sort(key=lambda parcel: parcel.kind == "adapter")
    parcels += [_of_file(key, place, brief) for key, place in brief.checkpoints.items() if key not in models]
    if brief.tasks is not None:
        parcels.append(_of_tasks(Path(brief.tasks)))
    return Supply(
        parcels=tuple(parcels), path_map=tuple(path_map), zoo=str(ZOO), allow_pickle=brief.allow_pickle
    )


def signature(folder: Path, names: Sequence[str]) -> tuple[Item, ...]:
    """Return the files of these names in a folder. Raises `OSError` if one is not there."""
    found = []
    for name in names:
        status = (folder / name).stat()
        found.append(Item(name=name, size=status.st_size, changed=status.st_mtime_ns, inode=status.st_ino))
    return tuple(found)


def _of_model(name: str, model: Checkpoint, brief: Brief) -> Parcel:
    folder = Path(brief.checkpoints[name])
    made = model.adaptation
    names = (ADAPTER_CONFIG, *CARRIED) if made is not None else _BESIDE
    weights = made.adapter.weight_files if made is not None else model.weight_files
    beside = [each for each in names if (folder / each).is_file()]
    return Parcel(
        name=name,
        kind="adapter" if made is not None else "model",
        folder=str(folder),
        digest=brief.digests[name],
        items=signature(folder, [*beside, *(str(file.relative_to(folder)) for file in weights)]),
        over=brief.adapts.get(name),
    )


def _of_file(key: str, place: str, brief: Brief) -> Parcel:
    file = Path(place)
    return Parcel(
        name=key,
        kind="statistics",
        folder=str(file.parent),
        digest=brief.digests[key],
        items=signature(file.parent, [file.name]),
    )


def _of_tasks(folder: Path) -> Parcel:
    try:
        items = signature(folder, sorted(_visible(folder)))
        if (nbytes := sum(item.size for item in items)) > _MOST_TASK_BYTES:
            raise RequestError(
                f"the task folder {folder} holds {gigabytes(nbytes)} in all, too much for every node of a "
                "cluster; give the tasks and their data a folder of their own"
            )
        digest = folder_digest(folder, [item.name for item in items])
    except OSError as error:
        raise RequestError(f"the task folder {folder} cannot be read: {error}") from error
    return Parcel(name=TASKS, kind="tasks", folder=str(folder), digest=digest, items=items)


def _visible(folder: Path) -> Iterator[str]:
    """Yield the names of the files in a folder and those below; hidden ones and bytecode are left out."""
    for root, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".") and each != "__pycache__"]
        for file in files:
            path = Path(root) / file
            if not file.startswith(".") and path.is_file():
                yield str(path.relative_to(folder))


def gigabytes(nbytes: int) -> str:
    """Return a size as people say it."""
    return f"{nbytes / 1e9:.1f} GB" if nbytes >= 1e8 else f"{nbytes / 1e6:.1f} MB"


def read_path_map(pairs: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the folders of `HERE=THERE`, those here as sources are found: links followed.

    Raises `RequestError` for what is not of this form, and for a folder that is not here.
    """
    return tuple(map(_pair, pairs))


def _pair(text: str) -> tuple[str, str]:
    here, sign, there = text.partition("=")
    if not sign or not here or not there.startswith(("/", "~")):
        raise RequestError(
            f"`--path-map {text}` is not HERE=THERE: a folder on this machine, and the absolute path that "
            "nodes have it at"
        )
    folder = Path(here).expanduser().resolve()
    if not folder.exists():
        raise RequestError(f"`--path-map {text}`: there is no {folder} on this machine")
    return str(folder), there


def mapped(place: str, here: str, there: str) -> Path | None:
    """Return where a place that lies in the folder `here` is in `there`; None if it does not."""
    path = Path(place)
    return Path(there) / path.relative_to(here) if path.is_relative_to(here) else None
