"""Evaluators as Ray actors: one per GPU where there are GPUs, else one per share of the CPUs."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from evomerge.dispatch.cluster import joined_ray, local_ray
from evomerge.dispatch.job import Job
from evomerge.dispatch.worker import Worker
from evomerge.errors import RequestError, WorkError
from evomerge.evaluate.brief import Brief
from evomerge.interrupts import held
from evomerge.types import Evaluation, Failed

_log = logging.getLogger(__name__)

_WAIT_SECONDS = 1.0
_ATTEMPTS = 2


@dataclass(frozen=True, kw_only=True)
class WorkerShape:
    """How many workers, and what each takes of the machine."""

    count: int
    cpus: int
    gpus: float


@dataclass(frozen=True, kw_only=True)
class _Flight:
    actor: Any
    job: Job
    attempt: int
    started: float


@contextmanager
def ray_dispatcher(brief: Brief, *, workers: int | None, address: str | None) -> Iterator[RayDispatcher]:
    """Give a dispatcher on a private Ray, or on the cluster at `address`; clean up at the end.

    Raises `RequestError` if the cluster cannot be reached or has no room for `workers`.
    """
    cluster = local_ray(cpus=_cpus()) if address is None else joined_ray(address)
    with cluster:
        dispatcher = RayDispatcher(brief, shape_workers(workers, threads=brief.threads))
        try:
            yield dispatcher
        finally:
            with held():
                dispatcher.close()


def _cpus() -> int:
    """Return the CPUs this process may use."""
    return len(os.sched_getaffinity(0))


def shape_workers(asked: int | None, *, threads: int) -> WorkerShape:
    """Return the workers the running Ray has room for: one per GPU, else one per `threads` CPUs.

    Raises `RequestError` if there is too little room for the workers asked for.
    """
    import ray

    have = ray.cluster_resources()  # type: ignore[no-untyped-call]
    cpus, gpus = int(have.get("CPU", 0)), int(have.get("GPU", 0))
    room = cpus // threads
    count = asked or min(gpus, room) or room
    if not 1 <= count <= room:
        raise RequestError(
            f"{max(count, 1)} worker(s) of {threads} thread(s) need more than Ray's {cpus} CPU(s); "
            + (f"use `--workers {room}` or fewer" if room else "lower `threads` in the space")
        )
    return WorkerShape(count=count, cpus=threads, gpus=min(1.0, gpus / count))


class RayDispatcher:
    """Actors of `Worker`. A worker that dies costs its candidate one retry on a fresh one."""

    def __init__(self, brief: Brief, shape: WorkerShape) -> None:
        import ray

        self._ray = ray
        self.capacity = shape.count
        self._brief = ray.put(brief)
        remote = ray.remote(num_cpus=shape.cpus, num_gpus=shape.gpus, max_restarts=0)
        self._kind: Any = remote(Worker)
        self._idle = [self._start() for _ in range(shape.count)]
        self._flights: dict[Any, _Flight] = {}
        self._await_first()

    def submit(self, job: Job) -> None:
        self._launch(job, attempt=1)

    def collect(self) -> list[tuple[Job, Evaluation]]:
        done, _ = self._ray.wait(list(self._flights), num_returns=1, timeout=_WAIT_SECONDS)
        with held():
            results = [(self._flights.pop(ref), ref) for ref in done]
            return [found for flight, ref in results for found in self._land(flight, ref)]

    def close(self) -> None:
        for actor in [*self._idle, *(flight.actor for flight in self._flights.values())]:
            self._ray.kill(actor)
        self._idle, self._flights = [], {}

    def _start(self) -> Any:
        return self._kind.remote(self._brief)

    def _await_first(self) -> None:
        """Wait until one worker is ready; if it cannot start, its own error ends the run."""
        from ray.exceptions import RayActorError

        ready = [actor.ready.remote() for actor in self._idle]
        first, _ = self._ray.wait(ready, num_returns=1)
        try:
            self._ray.get(first[0])
        except RayActorError as error:
            raise WorkError(
                f"no worker could start: {_cause(error)} (`--serial` runs without workers, for debugging)"
            ) from error

    def _launch(self, job: Job, *, attempt: int) -> None:
        actor = self._idle.pop()
        reference = actor.evaluate.remote(job.recipe, job.split)
        self._flights[reference] = _Flight(actor=actor, job=job, attempt=attempt, started=time.monotonic())

    def _land(self, flight: _Flight, reference: Any) -> Iterator[tuple[Job, Evaluation]]:
        from ray.exceptions import RayActorError

        try:
            evaluation = self._ray.get(reference)
        except RayActorError as error:
            self._idle.append(self._start())
            if flight.attempt < _ATTEMPTS:
                _log.warning("worker died on trial %d; trying it once more", flight.job.trial)
                self._launch(flight.job, attempt=flight.attempt + 1)
                return
            evaluation = Failed(
                reason=f"it ended its worker {flight.attempt} times: {_cause(error)}",
                traceback=str(error),
                seconds=time.monotonic() - flight.started,
            )
        else:
            self._idle.append(flight.actor)
        yield flight.job, evaluation


def _cause(error: Exception) -> str:
    """Return the end of what Ray tells of a dead actor: its own last error, or how its process ended."""
    return [line.strip() for line in str(error).splitlines() if line.strip()][-1]
