"""On a node of a cluster: each source found there by its content, or received once and kept.

What is kept lies in `sources/` of the cache folder, by digest. `checked/` holds what was found where, so
that weights are hashed once a node and not once a worker; a file that has changed since is hashed again.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import astuple, replace
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from evomerge.checkpoints.adapters import open_adapter
from evomerge.checkpoints.digest import digests, file_digest, folder_digest
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.locate import ZOO, repository
from evomerge.dispatch.supply import TASKS, Item, Parcel, Supply, gigabytes, mapped, signature
from evomerge.errors import CheckpointError
from evomerge.evaluate.brief import Brief

Fetch: TypeAlias = Callable[[str, int, int], Iterator[bytes]]
"""A parcel's name, which of its files and its size, to the file's bytes in pieces."""

_SPARE_BYTES = 64 << 20  # left free on a disk, at least
_FULL = (errno.ENOSPC, errno.EDQUOT)


def settle(brief: Brief, supply: Supply, fetch: Fetch, cache: Path) -> tuple[Brief, tuple[str, ...]]:
    """Return the brief with the places of this node, and in lines what had to be done for it.

    Raises `CheckpointError` if a source is neither here nor can be received.
    """
    places = _Places(supply, fetch, cache)
    found = {parcel.name: str(parcel.place_in(places.find(parcel))) for parcel in supply.parcels}
    tasks = found.pop(TASKS, None)
    return replace(brief, checkpoints={**brief.checkpoints, **found}, tasks=tasks), tuple(places.told)


def cache_folder() -> Path:
    """Return where this node keeps what it was sent: `EVOMERGE_CACHE`, else in the user's cache folder."""
    if own := os.environ.get("EVOMERGE_CACHE"):
        return Path(own).expanduser().absolute()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser().absolute() / "evomerge"


class _Places:
    """Where this node has each parcel, in the order of the supply."""

    def __init__(self, supply: Supply, fetch: Fetch, cache: Path) -> None:
        self._supply, self._fetch, self._cache = supply, fetch, cache
        self._models: dict[str, Checkpoint] = {}
        self._content: dict[Path, str] = {}  # of the models' folders
        self.told: list[str] = []

    def find(self, parcel: Parcel) -> Path:
        """Return the folder with the parcel's files."""
        with self._writing(parcel):
            for place in self._candidates(parcel):
                folder = place.parent if parcel.kind == "statistics" else place
                if self._holds(folder, parcel):
                    return self._settled(folder, parcel)
            return self._settled(self._received(parcel), parcel)

    def _candidates(self, parcel: Parcel) -> Iterator[Path]:
        """Yield where the parcel may lie on this node, likeliest first."""
        place = str(parcel.place)
        for here, there in (*self._supply.path_map, (self._supply.zoo, str(ZOO))):
            if (found := mapped(place, here, there)) is not None:
                yield found.expanduser()
        yield parcel.place
        if repository(parcel.place) is not None:
            from huggingface_hub.constants import HF_HUB_CACHE

            yield Path(HF_HUB_CACHE, *parcel.place.parts[-3:])

    def _settled(self, folder: Path, parcel: Parcel) -> Path:
        """Return the folder; an adapter of this model can now be opened."""
        if parcel.kind == "model":
            self._models[parcel.name] = open_checkpoint(folder, allow_pickle=self._supply.allow_pickle)
            self._content[folder] = parcel.digest
        return folder

    def _holds(self, folder: Path, parcel: Parcel) -> bool:
        """Return whether the folder holds the parcel: the controller's very files, or the same content."""
        try:
            there = signature(folder, [item.name for item in parcel.items])
        except OSError:
            return False
        if there == parcel.items:
            return True
        if [item.size for item in there] != [item.size for item in parcel.items]:
            self._tell_other(folder, parcel)
            return False
        with _locked(self._cache / "locks" / _key(str(folder))):
            mark = self._cache / "checked" / f"{_key(str(folder))}-{_key(parcel.name)}.json"
            known = _mark(parcel, there)
            if _read(mark) == known:
                return True
            try:
                same = self._digest(folder, parcel) == parcel.digest
            except (CheckpointError, OSError):
                same = False
            if same:
                _write(mark, known)
            else:
                self._tell_other(folder, parcel)
        return same

    def _tell_other(self, folder: Path, parcel: Parcel) -> None:
        self.told.append(
            f"{folder} on {socket.gethostname()} is not what the search has as {_said(parcel)}; not used"
        )

    def _digest(self, folder: Path, parcel: Parcel) -> str:
        if parcel.kind == "statistics":
            return file_digest(parcel.place_in(folder))
        if parcel.kind == "tasks":
            return folder_digest(folder, [item.name for item in parcel.items])
        if parcel.over is None:
            opened = open_checkpoint(folder, allow_pickle=self._supply.allow_pickle)
        else:
            base = self._models[parcel.over]
            opened = open_adapter(folder, base, allow_pickle=self._supply.allow_pickle)
        return digests({"": opened}, self._content)[""]

    def _received(self, parcel: Parcel) -> Path:
        """Return the folder of the cache with the parcel, filled unless an earlier worker has done it."""
        listing = _key(repr([(item.name, item.size) for item in parcel.items]))
        target = self._cache / "sources" / f"{parcel.digest.replace(':', '-')}-{listing[:8]}"
        with _locked(self._cache / "locks" / target.name):
            if target.exists():
                if self._holds(target, parcel):
                    return target
                shutil.rmtree(target)
            for left in target.parent.glob(f"{target.name}.partial-*"):  # of workers that were killed
                shutil.rmtree(left, ignore_errors=True)
            self._check_room(parcel)
            fresh = Path(tempfile.mkdtemp(prefix=f"{target.name}.partial-", dir=target.parent))
            try:
                self._fill(fresh, parcel)
                fresh.rename(target)
            finally:
                shutil.rmtree(fresh, ignore_errors=True)
            if not self._holds(target, parcel):
                shutil.rmtree(target)
                raise CheckpointError(
                    f"{_said(parcel)} as sent to {socket.gethostname()} is not what the search began with: "
                    f"{parcel.folder} has changed; undo that, or start a new run"
                )
        self.told.append(f"{_said(parcel)} ({gigabytes(parcel.nbytes)}) was sent to {socket.gethostname()}")
        return target

    def _fill(self, folder: Path, parcel: Parcel) -> None:
        for number, item in enumerate(parcel.items):
            path = folder / inside(item.name)
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                for piece in self._fetch(parcel.name, number, item.size):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())

    def _check_room(self, parcel: Parcel) -> None:
        folder = self._cache / "sources"
        folder.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(folder).free
        if free < parcel.nbytes + _SPARE_BYTES:
            raise _too_little(folder, parcel, free)

    @contextmanager
    def _writing(self, parcel: Parcel) -> Iterator[None]:
        """Say in a sentence that the cache folder is full or cannot be written."""
        try:
            yield
        except OSError as error:
            folder = self._cache / "sources"
            if error.errno in _FULL:
                raise _too_little(folder, parcel, shutil.disk_usage(folder).free) from error
            raise CheckpointError(
                f"{socket.gethostname()} has no {_said(parcel)} and cannot keep it in {folder}: "
                f"{error.strerror or error}; set EVOMERGE_CACHE there to a folder that can be written"
            ) from error


def _too_little(folder: Path, parcel: Parcel, free: int) -> CheckpointError:
    return CheckpointError(
        f"{socket.gethostname()} has no {_said(parcel)} and too little room for it: {gigabytes(free)} free "
        f"in {folder}, {gigabytes(parcel.nbytes)} needed; make room, or say with `--path-map` where it lies"
    )


def _said(parcel: Parcel) -> str:
    return parcel.name if parcel.kind == "tasks" else f"source `{parcel.name}`"


def inside(name: str) -> Path:
    """Return a file's name as a path that stays in its folder. Raises `CheckpointError` for any other."""
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or ".." in path.parts:
        raise CheckpointError(f"a file named {name!r} would leave the folder that it is sent to")
    return Path(path)


def _key(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _mark(parcel: Parcel, there: tuple[Item, ...]) -> Mapping[str, object]:
    """Return what is true of files that were found to be the parcel, as JSON has it."""
    return {"digest": parcel.digest, "files": [list(astuple(item)) for item in there]}


def _read(mark: Path) -> object:
    try:
        return json.loads(mark.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def _write(mark: Path, content: Mapping[str, object]) -> None:
    mark.parent.mkdir(parents=True, exist_ok=True)
    beside = mark.with_suffix(".partial")  # under the folder's lock, so nobody else writes it
    beside.write_text(json.dumps(content), encoding="utf-8")
    beside.replace(mark)


@contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Hold a lock between the workers of this node, and of others that share its cache folder."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
