"""How many workers fit, on which nodes, and how they share GPUs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from evomerge.dispatch.shape import Cluster, Node, WorkerShape, more_room, read_cluster, shape_workers
from evomerge.errors import RequestError


def cluster(*nodes: tuple[int, int], free: tuple[float, float] | None = None) -> Cluster:
    """Return a cluster of nodes of so many CPUs and GPUs; all is free unless `free` says what is."""
    cpus, gpus = free or (sum(cpus for cpus, _ in nodes), sum(gpus for _, gpus in nodes))
    return Cluster(nodes=[Node(cpus=cpus, gpus=gpus) for cpus, gpus in nodes], free_cpus=cpus, free_gpus=gpus)


@pytest.mark.parametrize(
    ("nodes", "asked", "share"),
    [
        ([(8, 2)], 1, 1.0),
        ([(8, 2)], 2, 1.0),
        ([(8, 2)], 3, 0.5),
        ([(8, 2)], 5, 0.3333),
        ([(8, 1)], 6, 0.1666),
        ([(8, 1), (8, 3)], 4, 1.0),
        ([(8, 1), (2, 3)], 4, 0.5),  # the second node has CPUs for two workers only
        ([(8, 0), (8, 1)], 2, 0.5),
        ([(8, 0)], 3, 0.0),
    ],
)
def test_the_share_of_a_gpu_is_one_that_fits(
    nodes: Sequence[tuple[int, int]], asked: int, share: float
) -> None:
    shape = shape_workers(cluster(*nodes), asked, threads=1)
    assert (shape.count, shape.gpus) == (asked, share)


@pytest.mark.parametrize("asked", range(1, 60))
def test_as_many_workers_can_be_placed_as_were_promised(asked: int) -> None:
    nodes = [(30, 3), (16, 1), (20, 2)]
    shape = shape_workers(cluster(*nodes), asked, threads=1)
    units = round(shape.gpus * 10_000)
    assert sum(min(gpus * (10_000 // units), cpus) for cpus, gpus in nodes) >= asked


@pytest.mark.parametrize(
    ("has", "threads", "count"),
    [
        (cluster((3, 0), (3, 0)), 2, 2),
        (cluster((3, 0), (3, 0), (1, 0)), 2, 2),
        (cluster((8, 2)), 1, 2),
        (cluster((8, 2), (64, 0)), 1, 2),
        (cluster((4, 0), (4, 0), free=(5.0, 0.0)), 2, 2),
        (cluster((4, 0), (4, 0), free=(1.0, 0.0)), 2, 4),  # nothing is free: wait for all
        (cluster((8, 4), free=(8.0, 1.0)), 1, 1),
    ],
)
def test_as_many_workers_as_fit_unless_a_number_is_asked_for(has: Cluster, threads: int, count: int) -> None:
    assert shape_workers(has, None, threads=threads).count == count


@pytest.mark.parametrize(
    ("nodes", "asked", "gpus", "count", "share", "without"),
    [
        ([(8, 1)], None, 0.25, 4, 0.25, 0),
        ([(3, 1)], None, 0.25, 3, 0.25, 0),
        ([(8, 2)], None, 0.3, 6, 0.3, 0),  # three on each
        ([(8, 2)], 2, 0.25, 2, 0.25, 0),
        ([(8, 2), (4, 0)], None, 0.0, 12, 0.0, 0),
        ([(8, 2), (4, 0)], None, None, 2, 1.0, 0),
        ([(8, 2), (4, 0)], 5, 1.0, 5, 1.0, 3),
        ([(2, 1), (4, 0)], 5, None, 5, 0.5, 3),
        ([(1, 1), (4, 0)], 2, None, 2, 1.0, 1),
        ([(0, 1), (4, 0)], 2, None, 2, 0.0, 0),
    ],
)
def test_nodes_without_gpus_have_what_those_with_gpus_have_no_room_for(
    nodes: Sequence[tuple[int, int]],
    asked: int | None,
    gpus: float | None,
    count: int,
    share: float,
    without: int,
) -> None:
    shape = shape_workers(cluster(*nodes), asked, threads=1, gpus=gpus)
    assert shape == WorkerShape(count=count, cpus=1, gpus=share, without_gpu=without)


@pytest.mark.parametrize(
    ("has", "shape", "room", "free"),
    [
        (cluster((4, 0), (3, 0), free=(5.0, 0.0)), WorkerShape(count=1, cpus=2, gpus=0.0), 3, 2),
        (cluster((4, 2), (9, 0), free=(9.0, 1.1)), WorkerShape(count=1, cpus=1, gpus=0.5), 4, 2),
        (cluster((4, 1), free=(4.0, 0.3)), WorkerShape(count=1, cpus=1, gpus=0.1), 4, 3),
    ],
)
def test_room_for_more_is_counted_on_nodes_of_the_same_kind(
    has: Cluster, shape: WorkerShape, room: int, free: int
) -> None:
    assert more_room(has, shape) == (room, free)


def test_a_busy_cluster_can_be_waited_for() -> None:
    assert shape_workers(cluster((4, 0), free=(0.0, 0.0)), 3, threads=1).count == 3


@pytest.mark.parametrize(
    ("has", "asked", "threads", "message"),
    [
        (
            cluster((3, 0), (3, 0)),
            3,
            2,
            r"3 worker.* of 2 thread.* 6 CPU.* on 2 node\(s\); use `--workers 2`",
        ),
        (cluster((1, 0), (1, 0)), None, 2, "2 CPU.* lower `threads`"),
        (cluster((1, 1), (64, 0)), None, 2, r"1 CPU.* on 1 node\(s\) with GPUs; lower `threads`"),
        (cluster(), None, 1, "1 worker"),
        (cluster((2, 1), (3, 0)), 6, 1, r"6 worker.* 5 CPU.* on 2 node\(s\); use `--workers 5`"),
    ],
)
def test_too_little_room_is_said(has: Cluster, asked: int | None, threads: int, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        shape_workers(has, asked, threads=threads)


def test_a_share_of_what_is_not_there_is_said() -> None:
    with pytest.raises(RequestError, match=r"0.5 of a GPU, and Ray has none"):
        shape_workers(cluster((4, 0)), None, threads=1, gpus=0.5)
    with pytest.raises(RequestError, match=r"3 worker.* and 0.5 GPU.* 4 CPU.* and 1 GPU.*`--workers 2`"):
        shape_workers(cluster((4, 1)), 3, threads=1, gpus=0.5)


def test_only_nodes_that_live_count() -> None:
    ray = SimpleNamespace(
        nodes=lambda: [
            {"Alive": True, "Resources": {"CPU": 3.0, "memory": 1e9}},
            {"Alive": True, "Resources": {"CPU": 4.0, "GPU": 2.0}},
            {"Alive": True, "Resources": {}},
            {"Alive": False, "Resources": {"CPU": 8.0}},
        ],
        available_resources=lambda: {"CPU": 2.5},
    )
    found = read_cluster(ray)
    assert found.nodes == [Node(cpus=3, gpus=0), Node(cpus=4, gpus=2), Node(cpus=0, gpus=0)]
    assert (found.free_cpus, found.free_gpus) == (2.5, 0.0)
    assert str(found) == "2.5 of 7 CPU(s) and 0 of 2 GPU(s) free on 3 node(s)"
    assert math.isclose(shape_workers(found, 3, threads=1).gpus, 0.5)
