"""Ray workers: what dies, what is retried, what listens, what is left."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
import ray

from evomerge.controller.setup import resolve
from evomerge.dispatch.job import Job
from evomerge.dispatch.pool import WorkerPool
from evomerge.dispatch.ray import RayDispatcher, hirer, ray_dispatcher
from evomerge.dispatch.shape import WorkerShape, read_cluster, shape_workers
from evomerge.errors import RequestError, WorkError
from evomerge.evaluate.brief import Brief
from evomerge.recipe import Recipe
from evomerge.space import read_space
from evomerge.space.baselines import baselines
from evomerge.types import Failed, Outcome, Scored
from tests.controller.conftest import SPACE
from tests.dispatch.listening import LOOPBACK, listening


class Deadly(str):
    """Text that ends the process that reads it."""

    def __reduce__(self) -> tuple[object, ...]:
        return os._exit, (1,)


class HomeOfReader(str):
    """Text that, once read in another process, is that process's home."""

    def __reduce__(self) -> tuple[object, ...]:
        return os.path.expanduser, ("~",)


class Occupant:
    """Somebody else's actor."""

    def ready(self) -> bool:
        return True


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[Brief, Recipe]:
    file = tmp_path_factory.mktemp("space") / "small.yaml"
    file.write_text(SPACE)
    record = resolve(read_space(file))
    return record.brief(), baselines(record.genome)[1].recipe


@pytest.fixture(scope="module")
def dispatcher(small: tuple[Brief, Recipe]) -> Iterator[RayDispatcher]:
    with ray_dispatcher(small[0], workers=1, address=None) as running:
        yield running


def collected(dispatcher: RayDispatcher) -> tuple[Job, Outcome]:
    """Return the next result."""
    while True:
        if found := dispatcher.collect():
            return found[0]


def pool_of(brief: Brief, shape: WorkerShape, *, patience: float = 60.0) -> WorkerPool:
    """Return more workers on the Ray that runs."""
    return WorkerPool(ray, hirer(ray, brief, shape, home=None), shape, patience=patience)


def worker_process(dispatcher: RayDispatcher) -> int:
    """Return the process of the only worker."""
    found = [
        process.pid
        for process in psutil.Process().children(recursive=True)
        if process.name().startswith("ray::RayWorker")
    ]
    assert len(found) == 1
    return found[0]


def test_a_job_comes_back_with_its_score(dispatcher: RayDispatcher, small: tuple[Brief, Recipe]) -> None:
    dispatcher.submit(Job(trial=7, recipe=small[1]))
    job, result = collected(dispatcher)
    assert job.trial == 7
    assert isinstance(result, Scored)
    assert 0 < result.scores["math_b"] < 1


def test_a_killed_worker_costs_one_retry(dispatcher: RayDispatcher, small: tuple[Brief, Recipe]) -> None:
    os.kill(worker_process(dispatcher), signal.SIGKILL)
    dispatcher.submit(Job(trial=8, recipe=small[1]))
    job, result = collected(dispatcher)
    assert job.trial == 8
    assert isinstance(result, Scored)


def test_an_unexpected_error_is_a_failure_with_its_traceback_after_a_retry_on_a_new_worker(
    dispatcher: RayDispatcher, small: tuple[Brief, Recipe]
) -> None:
    """Workers have the home of the user, too, which this error tells."""
    before = worker_process(dispatcher)
    dispatcher.submit(Job(trial=9, recipe=small[1], split=HomeOfReader("search")))  # type: ignore[arg-type]
    _, result = collected(dispatcher)
    assert isinstance(result, Failed)
    assert result.reason.startswith("KeyError: ")
    assert str(Path.home()) in result.reason, result.reason
    assert "Traceback" in result.traceback
    dispatcher.submit(Job(trial=14, recipe=small[1]))
    assert isinstance(collected(dispatcher)[1], Scored)
    assert worker_process(dispatcher) != before


def test_a_candidate_that_ends_every_worker_is_a_failure(
    dispatcher: RayDispatcher, small: tuple[Brief, Recipe]
) -> None:
    dispatcher.submit(Job(trial=10, recipe=small[1], split=Deadly("search")))  # type: ignore[arg-type]
    _, result = collected(dispatcher)
    assert isinstance(result, Failed)
    assert re.match("it ended its worker 2 times: .*Worker exit type", result.reason), result.reason
    assert result.ended_workers == 2
    dispatcher.submit(Job(trial=11, recipe=small[1]))
    assert isinstance(collected(dispatcher)[1], Scored)


def test_nothing_listens_beyond_loopback(dispatcher: RayDispatcher) -> None:
    assert set() < listening() <= LOOPBACK


def test_a_worker_that_cannot_start_ends_the_run_with_its_own_error(
    dispatcher: RayDispatcher, small: tuple[Brief, Recipe]
) -> None:
    lost = replace(small[0], tasks="/nowhere")
    with pytest.raises(
        WorkError, match=r"^no worker could start: .*`math_b`.*looked in /nowhere.*--serial"
    ) as it:
        pool_of(lost, WorkerShape(count=1, cpus=0, gpus=0.0)).await_first()
    assert "\n" not in str(it.value)


def test_more_workers_than_cpus_are_refused(dispatcher: RayDispatcher) -> None:
    with pytest.raises(RequestError, match="--workers"):
        shape_workers(read_cluster(ray), 10_000, threads=1)


def test_a_cluster_that_stays_busy_is_said(dispatcher: RayDispatcher, small: tuple[Brief, Recipe]) -> None:
    cpus = len(os.sched_getaffinity(0))  # one has the dispatcher's worker
    pool = pool_of(small[0], WorkerShape(count=1, cpus=cpus, gpus=0.0), patience=0.5)
    try:
        with pytest.raises(
            RequestError, match=rf"asked Ray for 1 worker.* of {cpus} CPU.* of {cpus} CPU.* free"
        ):
            pool.await_first()
    finally:
        pool.close()


def test_a_worker_joins_when_room_is_made(dispatcher: RayDispatcher, small: tuple[Brief, Recipe]) -> None:
    kind: Any = ray.remote(num_cpus=len(os.sched_getaffinity(0)) - 1)(Occupant)
    occupant = kind.remote()
    ray.get(occupant.ready.remote())
    pool = pool_of(small[0], WorkerShape(count=1, cpus=1, gpus=0.0))
    try:
        assert ray.wait(list(pool.starting), timeout=0.5)[0] == []
        ray.kill(occupant)
        pool.await_first()
        assert pool.take() is not None
    finally:
        pool.close()


def test_home_is_left_alone(dispatcher: RayDispatcher) -> None:
    assert not Path(os.environ["HOME"], "ray_bootstrap_config.yaml").exists()
