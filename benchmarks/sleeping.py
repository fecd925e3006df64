"""A worker that sleeps in place of evaluating; imports next to nothing, as 64 of them start on two cores."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence

from evomerge.dispatch.job import Job
from evomerge.types import ItemScores, Measure, Scored


class Sleeper:
    """What Ray starts in place of a `RayWorker`: answers at random after so many seconds."""

    def __init__(self, seconds: float, measure: Measure, items: Sequence[str]) -> None:
        self._seconds, self._measure, self._items = seconds, measure, tuple(items)

    def ready(self) -> tuple[str, ...]:
        """Return what was done to get ready: nothing."""
        return ()

    def run(self, job: Job) -> Scored:
        """Sleep, and return any scores on all items."""
        time.sleep(self._seconds)
        rng, measure = random.Random(job.recipe.key), self._measure
        passed = tuple(float(rng.random() < 0.5) for _ in self._items)
        items = ItemScores(
            task=measure.task, metric=measure.metric, filter=measure.filter, items=self._items, scores=passed
        )
        scores: Mapping[str, float] = {measure.name: sum(passed) / len(passed)}
        return Scored(
            scores=scores, items=(items,), merge_seconds=0.0, score_seconds=self._seconds, device="none"
        )
