"""How many workers a Ray cluster has room for, and what each takes. Only `read_cluster` asks Ray."""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.errors import RequestError

_log = logging.getLogger(__name__)

_UNIT = 10_000  # Ray counts in these parts of a resource, and rounds


@dataclass(frozen=True, kw_only=True)
class WorkerShape:
    """How many workers, and what each takes of its node; the last `without_gpu` of them take no GPU."""

    count: int
    cpus: int
    gpus: float
    without_gpu: int = 0

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU(s)" if self.gpus else ""
        but = f", {self.without_gpu} of them without a GPU" if self.without_gpu else ""
        return f"{self.count} worker(s) of {self.cpus} CPU(s){gpus}{but}"


@dataclass(frozen=True, kw_only=True)
class Node:
    """What a node has in all."""

    cpus: int
    gpus: int


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The nodes that live, and what is free of them together: Ray does not say which node's it is."""

    nodes: Sequence[Node]
    free_cpus: float
    free_gpus: float

    def __str__(self) -> str:
        cpus, gpus = sum(node.cpus for node in self.nodes), sum(node.gpus for node in self.nodes)
        free_gpus = f" and {self.free_gpus:g} of {gpus} GPU(s)" if gpus else ""
        return f"{self.free_cpus:g} of {cpus} CPU(s){free_gpus} free on {len(self.nodes)} node(s)"


def read_cluster(ray: Any) -> Cluster:
    """Return what the running Ray has now."""
    totals = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    free = ray.available_resources()
    return Cluster(
        nodes=[Node(cpus=int(has.get("CPU", 0)), gpus=int(has.get("GPU", 0))) for has in totals],
        free_cpus=free.get("CPU", 0.0),
        free_gpus=free.get("GPU", 0.0),
    )


def shape_workers(
    cluster: Cluster, asked: int | None, *, threads: int, gpus: float | None = None
) -> WorkerShape:
    """Return `asked` workers of `threads` CPUs; None asks for as many as fit in what is free, or at all.

    Where there are GPUs every worker has one, or an equal share of one if more are asked for than there are;
    `gpus` says which share instead, 0 that none has any. Nodes without GPUs have workers only if more are
    asked for than the nodes with GPUs have room for. Raises `RequestError` if the nodes have too little room
    for the workers asked for, however free they are.
    """
    with_gpu = [node for node in cluster.nodes if node.gpus] if gpus != 0 else []
    if gpus and not with_gpu:
        raise RequestError(f"a worker shall have {gpus:g} of a GPU, and Ray has none: say 0, or nothing")
    nodes = with_gpu or cluster.nodes
    most = _room(nodes, threads, _sharers(gpus) if gpus else None)
    elsewhere = _room([node for node in cluster.nodes if not node.gpus], threads) if with_gpu and asked else 0
    each = WorkerShape(count=1, cpus=threads, gpus=(gpus or 1.0) if with_gpu else 0.0)
    room, free = more_room(cluster, each)
    count = asked or free or room
    if not 1 <= count <= most + elsewhere:
        raise _too_little(cluster.nodes if elsewhere else nodes, count, most + elsewhere, threads, gpus)
    if not asked and count < room:
        _log.warning("%d of %d workers have room now; `--workers %d` waits for the rest", count, room, room)
    without = max(0, count - most)
    if without:
        _log.warning("%d of %d workers have no GPU: there is no room for more on those", without, count)
    share = gpus or (_share(with_gpu, count - without, threads) if with_gpu and count > without else 0.0)
    return WorkerShape(count=count, cpus=threads, gpus=share, without_gpu=without if share else 0)


def more_room(cluster: Cluster, shape: WorkerShape) -> tuple[int, int]:
    """Return how many workers as the first of `shape` fit on the nodes that live, and in what is free."""
    if not shape.gpus:
        room = _room(cluster.nodes, shape.cpus)
        return room, min(room, int(cluster.free_cpus // shape.cpus))
    room = _room([node for node in cluster.nodes if node.gpus], shape.cpus, _sharers(shape.gpus))
    free_shares = int(round(cluster.free_gpus * _UNIT) // round(shape.gpus * _UNIT))
    return room, min(room, int(cluster.free_cpus // shape.cpus), free_shares)


def _too_little(
    nodes: Sequence[Node], count: int, most: int, threads: int, gpus: float | None
) -> RequestError:
    kind = "node(s) with GPUs" if nodes and gpus != 0 and all(node.gpus for node in nodes) else "node(s)"
    share = f" and {gpus:g} GPU(s)" if gpus else ""
    has = f" and {sum(node.gpus for node in nodes)} GPU(s)" if gpus else ""
    return RequestError(
        f"{max(count, 1)} worker(s) of {threads} thread(s){share} need more than Ray's "
        f"{sum(node.cpus for node in nodes)} CPU(s){has} on {len(nodes)} {kind}; "
        + (f"use `--workers {most}` or fewer" if most else "lower `threads` in the space")
    )


def _sharers(gpus: float) -> int:
    """Return how many workers with so much of a GPU fit on one, as Ray counts."""
    return int(_UNIT // max(1, round(gpus * _UNIT)))


def _room(nodes: Sequence[Node], threads: int, sharers: int | None = None) -> int:
    """Return how many workers fit, each on one node, with up to `sharers` to a GPU where there are GPUs.

    None lets any number share one, or have none.
    """
    return sum(
        min(node.gpus * sharers, node.cpus // threads) if node.gpus and sharers else node.cpus // threads
        for node in nodes
    )


def _share(nodes: Sequence[Node], count: int, threads: int) -> float:
    """Return the largest share of a GPU that `count` workers can each have on these nodes' GPUs.

    Rounded down to what Ray can count: six shares of 0.1667 would be more than one GPU.
    """
    sharers = next(k for k in itertools.count(1) if _room(nodes, threads, k) >= count)
    return math.floor(_UNIT / sharers) / _UNIT
