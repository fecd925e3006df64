"""A Ray that does what a test says, at once."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from evomerge.dispatch.pool import WorkerPool
from evomerge.dispatch.ray import RayDispatcher
from evomerge.dispatch.shape import WorkerShape


@dataclass(eq=False)
class Reference:
    """What a call on an actor gives; `answer` comes back or, if an error, is raised."""

    answer: Any = None

    def remote(self, *arguments: Any) -> Reference:
        return self


@dataclass(eq=False)
class Actor:
    """A worker that is ready, and done with its job, when the test says so."""

    ready: Reference = field(default_factory=Reference)
    run: Reference = field(default_factory=Reference)
    killed: bool = False


class StandInRay:
    """What the pool and the dispatcher use of Ray. `prepared` are the next actors, in order."""

    def __init__(self, *prepared: Actor) -> None:
        self.prepared = list(prepared)
        self.actors: list[Actor] = []

    def hire(self, before: Actor | None) -> Actor:
        self.actors.append(self.prepared.pop(0) if self.prepared else Actor())
        return self.actors[-1]

    def wait(
        self, references: list[Reference], *, num_returns: int, timeout: float
    ) -> tuple[list[Reference], list[Reference]]:
        done = [each for each in references if each.answer is not None][:num_returns]
        if not done:
            time.sleep(min(timeout, 0.01))
        return done, [each for each in references if each not in done]

    def get(self, reference: Reference) -> Any:
        answer, reference.answer = reference.answer, None
        if isinstance(answer, Exception):
            raise answer
        return answer

    def kill(self, actor: Actor) -> None:
        actor.killed = True

    def nodes(self) -> list[dict[str, Any]]:
        return [{"Alive": True, "Resources": {"CPU": 4.0}}, {"Alive": True, "Resources": {"CPU": 2.0}}]

    def available_resources(self) -> dict[str, float]:
        return {"CPU": 1.0}


def ready() -> Actor:
    """Return an actor that is ready at once."""
    return Actor(ready=Reference(answer=()))


def pool_of(ray: StandInRay, count: int, *, patience: float = 60.0) -> WorkerPool:
    """Return a pool of workers of two CPUs."""
    return WorkerPool(ray, ray.hire, WorkerShape(count=count, cpus=2, gpus=0.0), patience=patience)


def dispatcher_of(
    ray: StandInRay, count: int, *, patience: float = 60.0, limit: float | None = None
) -> RayDispatcher:
    """Return a dispatcher whose first worker has come."""
    pool = pool_of(ray, count, patience=patience)
    pool.await_first()
    return RayDispatcher(ray, pool, capacity=count, limit=limit)
