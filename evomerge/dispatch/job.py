"""What is dispatched, and what every backend offers."""

from __future__ import annotations

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
