"""Evaluators as Ray actors: one per GPU where there are GPUs, else one per share of the CPUs."""

from __future__ import annotations

import logging
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.dispatch.cluster import joined_ray, local_ray
from evomerge.dispatch.growth import LOOK_SECONDS, Growth
from evomerge.dispatch.hiring import Hirer
from evomerge.dispatch.job import Job
from evomerge.dispatch.pool import WorkerPool, cause
from evomerge.dispatch.shape import WorkerShape, read_cluster, shape_workers
from evomerge.dispatch.shipping import Shipment, open_shipment
from evomerge.dispatch.supply import PathMap, supply_of
from evomerge.dispatch.worker import unforeseen
from evomerge.evaluate.brief import Brief
from evomerge.interrupts import held
from evomerge.types import Failed, Outcome

_log = logging.getLogger(__name__)

_WAIT_SECONDS = 1.0
_ATTEMPTS = 2


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    job: Job
    number: int


@dataclass(frozen=True, kw_only=True)
class _Flight:
    actor: Any
    attempt: _Attempt
    started: float


@contextmanager
def ray_dispatcher(
    brief: Brief,
    *,
    workers: int | None,
    address: str | None,
    gpus: float | None = None,
    path_map: PathMap = (),
) -> Iterator[RayDispatcher]:
    """Give a dispatcher with a worker, on a private Ray or the cluster at `address`; clean up at the end.

    `gpus` is what each worker has of a GPU; `path_map` says where a cluster's nodes may have the sources.
    Raises `RequestError` if the cluster cannot be reached, has no room for `workers`, or gives none in
    ten minutes; `WorkError` if none can start.
    """
    cluster = local_ray(cpus=_cpus()) if address is None else joined_ray(address)
    home = str(Path.home()) if address is None else None
    with cluster:
        import ray

        shape = shape_workers(read_cluster(ray), workers, threads=brief.threads, gpus=gpus)
        growth = Growth(ray, shape, every=LOOK_SECONDS) if address is not None and workers is None else None
        sent = None
        if address is not None:
            sent = open_shipment(ray, supply_of(brief, path_map), send=not address.startswith("ray://"))
        hire = hirer(ray, brief, shape, home=home, shipment=sent)
        pool = WorkerPool(ray, hire, shape, busy=sent.busy if sent is not None else lambda: False)
        dispatcher = RayDispatcher(ray, pool, capacity=shape.count, growth=growth)
        try:
            pool.await_first()
            yield dispatcher
        finally:
            with held():
                dispatcher.close()


def hirer(
    ray: Any, brief: Brief, shape: WorkerShape, *, home: str | None, shipment: Shipment | None = None
) -> Hirer:
    """Return what asks Ray for one more worker of this shape."""
    supply = (ray.put(shipment.supply), shipment.depot) if shipment is not None else ()
    return Hirer(ray, brief, (home, *supply), shape)


def _cpus() -> int:
    """Return the CPUs this process may use."""
    return len(os.sched_getaffinity(0))


class RayDispatcher:
    """Jobs to the workers of a pool. A worker that dies costs its candidate one retry on another.

    `capacity` counts the workers asked for, so that what is asked of a sampler depends on results alone
    and not on how soon workers come; jobs wait here until one is ready. With `growth` it rises as nodes join.
    """

    def __init__(self, ray: Any, pool: WorkerPool, *, capacity: int, growth: Growth | None = None) -> None:
        self.capacity = capacity
        self._growth = growth
        self._ray, self._pool = ray, pool
        self._waiting: deque[_Attempt] = deque()
        self._flights: dict[Any, _Flight] = {}
        self._had: dict[int, Any] = {}  # by trial, the worker that built its model last and may have it yet

    def submit(self, job: Job) -> None:
        self._waiting.append(_Attempt(job=job, number=1))
        self._launch()

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Return what has finished. Raises `WorkError` if no worker is left to wait for."""
        with held():
            self._grow()
            self._launch()  # not after landing: the next look at what has landed is handed in first
        if self._waiting and not self._flights:
            self._pool.check()
        references = [*self._pool.starting, *self._flights]
        done, _ = self._ray.wait(references, num_returns=1, timeout=_WAIT_SECONDS) if references else ([], [])
        with held():
            landed = [(self._flights.pop(ref), ref) for ref in done if ref in self._flights]
            self._pool.admit(done)
            return [found for flight, ref in landed for found in self._land(flight, ref)]

    def withdraw(self) -> list[Job]:
        """Take back the jobs that wait for a worker; those that are tried again are under way."""
        taken = [attempt.job for attempt in self._waiting if attempt.number == 1]
        self._waiting = deque(attempt for attempt in self._waiting if attempt.number > 1)
        return taken

    def close(self) -> None:
        for flight in self._flights.values():
            self._ray.kill(flight.actor)
        self._flights = {}
        self._waiting.clear()
        self._pool.close()

    def _grow(self) -> None:
        """Hire more workers if the cluster has room for them now."""
        if self._growth is not None:
            more = self._growth.more(workers=self.capacity, starting=len(self._pool.starting))
            self._pool.grow(more)
            self.capacity += more

    def _launch(self) -> None:
        """Send waiting jobs out while there are idle workers.

        First each trial's next look to the worker that has its model, or they would build models in turn.
        """
        for attempt in [each for each in self._waiting if each.job.trial in self._had]:
            if (actor := self._pool.take(self._had[attempt.job.trial])) is not None:
                self._waiting.remove(attempt)
                self._send(attempt, actor)
        while self._waiting and (actor := self._pool.take()) is not None:
            self._send(self._waiting.popleft(), actor)

    def _send(self, attempt: _Attempt, actor: Any) -> None:
        reference = actor.run.remote(attempt.job)
        self._flights[reference] = _Flight(actor=actor, attempt=attempt, started=time.monotonic())

    def _land(self, flight: _Flight, reference: Any) -> Iterator[tuple[Job, Outcome]]:
        from ray.exceptions import RayError, RayTaskError

        job, number = flight.attempt.job, flight.attempt.number
        self._had = {trial: actor for trial, actor in self._had.items() if actor is not flight.actor}
        try:
            outcome = self._ray.get(reference)
        except RayTaskError:  # raised by our own code: a bug
            raise
        except RayError as error:
            self._pool.replace(flight.actor)
            if number < _ATTEMPTS:
                _log.warning("worker lost on trial %d (%s); trying it once more", job.trial, cause(error))
                self._waiting.appendleft(_Attempt(job=job, number=number + 1))
                return
            outcome = Failed(
                reason=f"it ended its worker {number} times: {cause(error)}",
                traceback=str(error),
                seconds=time.monotonic() - flight.started,
            )
        else:
            self._had[job.trial] = flight.actor
            settle = self._pool.replace if unforeseen(outcome) else self._pool.give_back
            settle(flight.actor)
        yield job, outcome
