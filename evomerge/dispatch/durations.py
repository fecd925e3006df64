"""How long jobs usually take, to tell of one that may never end where no limit ends it."""

from __future__ import annotations

import statistics
from collections import deque
from typing import TypeAlias

from evomerge.dispatch.job import Job

_MANY_TIMES = 10.0
_LEAST_SECONDS = 60.0
_ENOUGH = 5
_KEPT = 200

_Kind: TypeAlias = tuple[str, int | None, bool]


class Durations:
    """The last durations of jobs, by what they ask of a candidate: a look takes less than all the items."""

    def __init__(self) -> None:
        self._seconds: dict[_Kind, deque[float]] = {}

    def add(self, job: Job, seconds: float) -> None:
        """Learn how long a job took."""
        self._seconds.setdefault(_kind(job), deque(maxlen=_KEPT)).append(seconds)

    def usual(self, job: Job, seconds: float) -> float | None:
        """Return the median duration of jobs like this, if this one has taken more than ten times that.

        None while five are not known yet, and for the first minute, which says little.
        """
        known = self._seconds.get(_kind(job), ())
        if seconds < _LEAST_SECONDS or len(known) < _ENOUGH:
            return None
        median = statistics.median(known)
        return median if seconds > _MANY_TIMES * median else None


def _kind(job: Job) -> _Kind:
    return job.split, job.look, job.identify
