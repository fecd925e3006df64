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
    """How many workers, and what each takes of its node."""

    count: int
    cpus: int
    gpus: float

    def __str__(self) -> str:
        gpus = f" and {self.gpus:g} GPU(s)" if self.gpus else ""
        return f"{self.count} worker(s) of {self.cpus} CPU(s){gpus}"


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


def shape_workers(cluster: Cluster, asked: int | None, *, threads: int) -> WorkerShape:
    """Return `asked` workers of `threads` CPUs; None asks for as many as fit in what is free, or at all.

    Where there are GPUs every worker has one, or an equal share of one if more are asked for than there are.
    Raises `RequestError` if the nodes have too little room for the workers asked for, however free they are.
    """
    with_gpu = [node for node in cluster.nodes if node.gpus]
    nodes = with_gpu or cluster.nodes
    most = sum(node.cpus // threads for node in nodes)
    room = _room(nodes, threads)
    count = asked or _free(cluster, threads) or room
    if not 1 <= count <= most:
        kind = "node(s) with GPUs" if with_gpu else "node(s)"
        raise RequestError(
            f"{max(count, 1)} worker(s) of {threads} thread(s) need more than Ray's "
            f"{sum(node.cpus for node in nodes)} CPU(s) on {len(nodes)} {kind}; "
            + (f"use `--workers {most}` or fewer" if most else "lower `threads` in the space")
        )
    if not asked and count < room:
        _log.warning("%d of %d workers have room now; `--workers %d` waits for the rest", count, room, room)
    return WorkerShape(count=count, cpus=threads, gpus=_share(with_gpu, count, threads) if with_gpu else 0.0)


def _room(nodes: Sequence[Node], threads: int, sharers: int = 1) -> int:
    """Return how many workers fit, each on one node, with up to `sharers` to a GPU where there are GPUs."""
    return sum(
        min(node.gpus * sharers, node.cpus // threads) if node.gpus else node.cpus // threads
        for node in nodes
    )


def _free(cluster: Cluster, threads: int) -> int:
    """Return how many workers fit in what is free, one to a GPU; 0 if not even one."""
    with_gpu = [node for node in cluster.nodes if node.gpus]
    room = min(_room(with_gpu or cluster.nodes, threads), int(cluster.free_cpus // threads))
    return min(room, int(cluster.free_gpus)) if with_gpu else room


def _share(nodes: Sequence[Node], count: int, threads: int) -> float:
    """Return the largest share of a GPU that `count` workers can each have on these nodes' GPUs.

    Rounded down to what Ray can count: six shares of 0.1667 would be more than one GPU.
    """
    sharers = next(k for k in itertools.count(1) if _room(nodes, threads, k) >= count)
    return math.floor(_UNIT / sharers) / _UNIT
