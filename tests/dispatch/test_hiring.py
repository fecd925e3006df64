"""Who is asked for: kinds of workers, their successors, and more of them as nodes join. Against a stand-in."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from evomerge.dispatch.growth import Growth
from evomerge.dispatch.hiring import Hirer
from evomerge.dispatch.job import Job
from evomerge.dispatch.ray import RayDispatcher
from evomerge.dispatch.shape import WorkerShape
from evomerge.recipe import Recipe
from tests.dispatch.stand_in import StandInRay, pool_of, ready

RECIPE: Recipe = "a recipe"  # type: ignore[assignment]


class Kinds:
    """A Ray that tells of each actor what was asked for."""

    def remote(self, **asked: Any) -> Callable[[type], Any]:
        class Kind:
            @staticmethod
            def remote(*arguments: Any) -> tuple[float, str, object]:
                return asked["num_gpus"], asked["scheduling_strategy"], object()

        return lambda actor: Kind


def test_workers_with_gpus_come_first_and_successors_take_what_the_lost_ones_took() -> None:
    hire = Hirer(Kinds(), (), WorkerShape(count=3, cpus=1, gpus=0.5, without_gpu=1))
    first, second, third = hire(None), hire(None), hire(None)
    assert [each[:2] for each in (first, second, third)] == [
        (0.5, "SPREAD"),
        (0.5, "SPREAD"),
        (0.0, "DEFAULT"),
    ]
    again = hire(third)
    assert again[:2] == (0.0, "DEFAULT")
    assert [each[:2] for each in (hire(again), hire(first), hire(None))] == [
        (0.0, "DEFAULT"),
        (0.5, "SPREAD"),
        (0.5, "SPREAD"),
    ]


class Grown(StandInRay):
    """A cluster of so many CPUs that are all free."""

    cpus = 2.0

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": self.cpus}}]

    def available_resources(self) -> dict[str, float]:
        return {"CPU": self.cpus - 2.0}


def test_room_that_comes_is_used_at_once() -> None:
    ray = Grown(ready(), ready(), ready())
    pool = pool_of(ray, 1)
    pool.await_first()
    growth = Growth(ray, WorkerShape(count=1, cpus=2, gpus=0.0), every=0.0)
    dispatcher = RayDispatcher(ray, pool, capacity=1, growth=growth)
    for trial in range(3):
        dispatcher.submit(Job(trial=trial, recipe=RECIPE))
    dispatcher.collect()
    assert (dispatcher.capacity, len(ray.actors)) == (1, 1)
    ray.cpus = 6.0
    dispatcher.collect()
    assert (dispatcher.capacity, len(ray.actors)) == (3, 3)
    dispatcher.collect()
    assert (dispatcher.capacity, len(ray.actors)) == (3, 3)


@pytest.mark.parametrize(("workers", "starting", "more"), [(1, 0, 2), (1, 1, 1), (3, 0, 0), (1, 5, 0)])
def test_workers_that_have_not_come_have_their_room_kept(workers: int, starting: int, more: int) -> None:
    ray = Grown()
    ray.cpus = 6.0
    growth = Growth(ray, WorkerShape(count=1, cpus=2, gpus=0.0), every=0.0)
    assert growth.more(workers=workers, starting=starting) == more


def test_a_cluster_is_not_asked_all_the_time() -> None:
    ray = Grown()
    ray.cpus = 6.0
    assert Growth(ray, WorkerShape(count=1, cpus=2, gpus=0.0), every=60.0).more(workers=1, starting=0) == 0
