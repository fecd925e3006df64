"""Evaluators as Ray actors: one per GPU where there are GPUs, else one per share of the CPUs."""

from __future__ import annotations

import logging
import math
import os
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.dispatch.cluster import joined_ray, local_ray
from evomerge.dispatch.durations import Durations
from evomerge.dispatch.growth import LOOK_SECONDS, Growth
from evomerge.dispatch.hiring import Hirer
from evomerge.dispatch.job import Crew, Job, crew_at
from evomerge.dispatch.losses import Loss, failed_twice, seconds_said
from evomerge.dispatch.pool import WorkerPool, cause
from evomerge.dispatch.shape import WorkerShape, read_cluster, shape_workers
from evomerge.dispatch.shipping import Shipment, open_shipment
from evomerge.dispatch.supply import PathMap, supply_of
from evomerge.dispatch.worker import unforeseen
from evomerge.evaluate.brief import Brief
from evomerge.interrupts import held
from evomerge.types import Outcome

_log = logging.getLogger(__name__)

FRESH_SECONDS = 60.0
"""How long a second try waits for a worker that has had no job yet; then any other will do."""

_WAIT_SECONDS = 1.0


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    """A job to be sent; one that came to nothing before, as `lost` tells, once more, waiting since then."""

    job: Job
    lost: Loss | None = None
    since: float = 0.0


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
    limit: float | None = None,
) -> Iterator[RayDispatcher]:
    """Give a dispatcher with a worker, on a private Ray or the cluster at `address`; clean up at the end.

    `gpus` is what each worker has of a GPU; `path_map` says where a cluster's nodes may have the sources.
    A job that takes more than `limit` seconds is ended, and tried once more.

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
        dispatcher = RayDispatcher(ray, pool, capacity=shape.count, growth=growth, limit=limit)
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
    """Jobs to the workers of a pool, each of which is replaced once it seems broken.

    A job whose worker dies, takes more than `limit` seconds or meets an error that nobody foresaw is tried
    once more, on a worker that has had no job yet, while the others go on. `capacity` counts the workers
    asked for, so that what is asked of a sampler depends on results alone and not on how soon workers come;
    jobs wait here until one is ready. With `growth` it rises as nodes join.
    """

    def __init__(
        self,
        ray: Any,
        pool: WorkerPool,
        *,
        capacity: int,
        growth: Growth | None = None,
        limit: float | None = None,
    ) -> None:
        self.capacity = capacity
        self._growth = growth
        self._ray, self._pool = ray, pool
        self._limit = limit
        self._waiting: deque[_Attempt] = deque()
        self._flights: dict[Any, _Flight] = {}
        self._had: dict[int, Any] = {}  # by trial, the worker that built its model last and may have it yet
        self._durations = Durations()
        self._slow: set[int] = set()  # trials that were said to be slow
        self._counted, self._nodes = -math.inf, 1

    def submit(self, job: Job) -> None:
        self._waiting.append(_Attempt(job=job))
        self._launch()

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Return what has finished. Raises `WorkError` if no worker is left to wait for."""
        with held():
            self._pool.refill()
            self._grow()
            self._launch()  # not after landing: the next look at what has landed is handed in first
        if self._waiting and not self._flights:
            self._pool.check()
        references = [*self._pool.starting, *self._flights]
        done, _ = self._ray.wait(references, num_returns=1, timeout=_WAIT_SECONDS) if references else ([], [])
        with held():
            landed = [(self._flights.pop(ref), ref) for ref in done if ref in self._flights]
            self._pool.admit(done)
            found = [each for flight, ref in landed for each in self._land(flight, ref)]
            return [*found, *self._end_late()]

    def withdraw(self) -> list[Job]:
        """Take back the jobs that wait for a worker; those that are tried again are under way."""
        taken = [attempt.job for attempt in self._waiting if attempt.lost is None]
        self._waiting = deque(attempt for attempt in self._waiting if attempt.lost is not None)
        return taken

    def crew(self) -> Crew:
        """Return what the workers are doing; the nodes are counted every few seconds."""
        if time.monotonic() - self._counted > LOOK_SECONDS:
            self._counted, self._nodes = time.monotonic(), len(read_cluster(self._ray).nodes)
        return crew_at(
            [flight.attempt.job for flight in self._flights.values()],
            idle=self._pool.idle,
            starting=len(self._pool.starting),
            missing=self._pool.missing,
            nodes=self._nodes,
        )

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

        First second tries to new workers; then each trial's next look to the worker that has its model, or
        they would build models in turn.
        """
        for attempt in [each for each in self._waiting if each.lost is not None]:
            actor = self._pool.take_fresh()
            if actor is None and not self._hopes(attempt):
                actor = self._pool.take()
            self._send_waiting(attempt, actor)
        first_tries = [each for each in self._waiting if each.lost is None]
        for attempt in first_tries:
            if (has := self._had.get(attempt.job.trial)) is not None:
                self._send_waiting(attempt, self._pool.take(has))
        for attempt in [each for each in first_tries if each in self._waiting]:
            self._send_waiting(attempt, self._pool.take())

    def _hopes(self, attempt: _Attempt) -> bool:
        """Return whether a second try still waits for a worker that has had no job yet."""
        return bool(self._pool.starting) and time.monotonic() - attempt.since < FRESH_SECONDS

    def _send_waiting(self, attempt: _Attempt, actor: Any | None) -> None:
        """Send a waiting job out, if there is a worker for it."""
        if actor is None:
            return
        self._waiting.remove(attempt)
        reference = actor.run.remote(attempt.job)
        self._flights[reference] = _Flight(actor=actor, attempt=attempt, started=time.monotonic())

    def _land(self, flight: _Flight, reference: Any) -> Iterator[tuple[Job, Outcome]]:
        """Yield what came back of a job, unless it is tried once more."""
        from ray.exceptions import RayError, RayTaskError

        try:
            outcome = self._ray.get(reference)
        except RayTaskError as error:  # the job or its result did not travel, or no `Exception` was raised
            yield from self._lose(flight, Loss(how="error", said=cause(error), traceback=str(error)))
            return
        except RayError as error:
            yield from self._lose(flight, Loss(how="death", said=cause(error), traceback=str(error)))
            return
        if unforeseen(outcome):
            loss = Loss(how="error", said=outcome.reason, traceback=outcome.traceback)
            yield from self._lose(flight, loss)
            return
        self._forget(flight.actor)
        self._had[flight.attempt.job.trial] = flight.actor
        self._durations.add(flight.attempt.job, time.monotonic() - flight.started)
        self._pool.give_back(flight.actor)
        yield flight.attempt.job, outcome

    def _end_late(self) -> Iterator[tuple[Job, Outcome]]:
        """End the workers whose jobs take too long, but for those that have answered; say it if none do."""
        if self._limit is None:
            self._tell_slow()
            return
        now = time.monotonic()
        late = [ref for ref, flight in self._flights.items() if now - flight.started > self._limit]
        answered = self._ray.wait(late, num_returns=len(late), timeout=0)[0] if late else []
        for reference in [each for each in late if each not in answered]:
            loss = Loss(how="time", said=seconds_said(self._limit))
            yield from self._lose(self._flights.pop(reference), loss)

    def _lose(self, flight: _Flight, loss: Loss) -> Iterator[tuple[Job, Outcome]]:
        """Replace a worker, and try its job once more; yield its end if that was done before."""
        job, first, now = flight.attempt.job, flight.attempt.lost, time.monotonic()
        self._forget(flight.actor)
        self._pool.replace(flight.actor)
        if first is not None:
            yield job, failed_twice(first, loss, seconds=now - flight.started)
            return
        _log.warning("trial %d came to nothing: %s; trying it once more on a new worker", job.trial, loss)
        _log.info("trial %d: %s", job.trial, loss.traceback)
        self._waiting.appendleft(_Attempt(job=job, lost=loss, since=now))

    def _forget(self, actor: Any) -> None:
        """Know no model to be on a worker any more."""
        self._had = {trial: has for trial, has in self._had.items() if has is not actor}

    def _tell_slow(self) -> None:
        """Log, once for each trial, that a job takes ten times as long as usual."""
        for flight in self._flights.values():
            job, seconds = flight.attempt.job, time.monotonic() - flight.started
            usual = self._durations.usual(job, seconds)
            if usual is not None and job.trial not in self._slow:
                self._slow.add(job.trial)
                _log.warning(
                    "trial %d has been at work for %d seconds where %.2g is usual; "
                    "`--candidate-time-limit` ends those that take too long",
                    job.trial, seconds, usual,
                )  # fmt: skip
