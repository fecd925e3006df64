"""How a source gets from the controller's machine to a node that has none: in pieces, through Ray."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.errors import CheckpointError

if TYPE_CHECKING:
    from evomerge.dispatch.supply import Supply
    from evomerge.evaluate.brief import Brief

PIECE_BYTES = 8 << 20
_AHEAD = 4  # pieces asked for before the first has come
_RECENT_SECONDS = 60.0


class Depot:
    """An actor on the controller's machine that reads out the files of a search's sources, and no others."""

    def __init__(self, files: Mapping[str, tuple[str, ...]]) -> None:
        self._files = {name: tuple(map(Path, paths)) for name, paths in files.items()}
        self._asked = float("-inf")

    def read(self, name: str, number: int, offset: int) -> bytes | str:
        """Return a piece of the `number`th file of the source of this name, or why it cannot be read."""
        self._asked = time.monotonic()
        try:
            with self._files[name][number].open("rb") as file:
                return os.pread(file.fileno(), PIECE_BYTES, offset)
        except OSError as error:
            return str(error)

    def busy(self) -> bool:
        """Return whether anything was read out of late."""
        return time.monotonic() - self._asked < _RECENT_SECONDS


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """What a cluster's workers are given to find or receive the sources by; `depot` None sends nothing."""

    ray: Any
    supply: Supply
    depot: Any | None

    def busy(self) -> bool:
        """Return whether something is being sent to a node."""
        from ray.exceptions import GetTimeoutError, RayActorError

        try:
            return self.depot is not None and bool(self.ray.get(self.depot.busy.remote(), timeout=10.0))
        except (GetTimeoutError, RayActorError):
            return False


def open_shipment(ray: Any, supply: Supply, *, send: bool) -> Shipment:
    """Return what to give workers; with `send`, a depot on the node of this process stands behind it."""
    if not send:
        return Shipment(ray=ray, supply=supply, depot=None)
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    kind = ray.remote(num_cpus=0, max_restarts=-1, max_concurrency=4, scheduling_strategy=here)(Depot)
    files = {
        parcel.name: tuple(str(Path(parcel.folder) / item.name) for item in parcel.items)
        for parcel in supply.parcels
    }
    return Shipment(ray=ray, supply=supply, depot=kind.remote(files))


def settled(brief: Brief, supply: Supply, depot: Any | None) -> tuple[Brief, tuple[str, ...]]:
    """Return the brief with the places of the node this runs on, and what was done for it, in lines."""
    from evomerge.dispatch.places import cache_folder, settle

    def fetch(name: str, number: int, size: int) -> Iterator[bytes]:
        return _pieces(depot, name, number, size)

    return settle(brief, supply, fetch, cache_folder())


def _pieces(depot: Any | None, name: str, number: int, size: int) -> Iterator[bytes]:
    """Yield a file piece by piece. Raises `CheckpointError` if it cannot be read where it lies."""
    import ray

    if depot is None:
        raise CheckpointError(
            f"`{name}` is not on this node, and nothing can be sent from a controller that is no node of its "
            "cluster (ray://…); put it on the nodes, and say with `--path-map` where it lies there"
        )
    offsets = iter(range(0, size, PIECE_BYTES))
    coming: deque[Any] = deque()
    while True:
        for offset in itertools.islice(offsets, _AHEAD - len(coming)):
            coming.append(depot.read.remote(name, number, offset))
        if not coming:
            return
        piece = ray.get(coming.popleft())
        if isinstance(piece, str):
            raise CheckpointError(f"`{name}` cannot be read on the controller's node: {piece}")
        yield piece
