"""What is dispatched, and what every backend offers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from evomerge.recipe import Recipe
from evomerge.types import Outcome, Split


@dataclass(frozen=True, kw_only=True)
class Job:
    """A recipe to build, and to score on the items of a split; `trial` comes back with the result.

    `look` asks for one of the parts the split comes in, in their order; None for all of them. `identify`
    asks only who the merged model is, and `screen` then refuses one that is plainly broken.
    """

    trial: int
    recipe: Recipe
    split: Split = "search"
    look: int | None = None
    identify: bool = False
    screen: bool = True


@dataclass(frozen=True, kw_only=True)
class Crew:
    """What the evaluators are doing: which trials are merged and which scored, by how many others it is not.

    `missing` are those that could not start and are tried again later; `nodes` are the machines they are on.
    """

    merging: tuple[int, ...] = ()
    scoring: tuple[int, ...] = ()
    idle: int = 0
    starting: int = 0
    missing: int = 0
    nodes: int = 1


class Dispatcher(Protocol):
    """Evaluators somewhere. A job handed in comes back exactly once."""

    @property
    def capacity(self) -> int:
        """How many jobs can be under way at once."""

    def submit(self, job: Job) -> None:
        """Take a job; fewer than `capacity` may be under way.

        The evaluator that had the trial before is preferred: it need not build the model again.
        """

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Return what has finished, waiting up to about a second for the first.

        Raises `WorkError` if there is no evaluator left to wait for.
        """

    def withdraw(self) -> list[Job]:
        """Take back the jobs that no evaluator has begun, and return them."""

    def close(self) -> None:
        """Let the evaluators go; jobs under way are lost."""


class Staffed(Dispatcher, Protocol):
    """A dispatcher that can say what its evaluators are doing."""

    def crew(self) -> Crew:
        """Return what they are doing now; asked for after every result, so it waits for nothing."""


def crew_at(
    jobs: Sequence[Job], *, idle: int = 0, starting: int = 0, missing: int = 0, nodes: int = 1
) -> Crew:
    """Return a crew that is at these jobs; who a candidate is is found by merging it."""
    return Crew(
        merging=tuple(job.trial for job in jobs if job.identify),
        scoring=tuple(job.trial for job in jobs if not job.identify),
        idle=idle,
        starting=starting,
        missing=missing,
        nodes=nodes,
    )
