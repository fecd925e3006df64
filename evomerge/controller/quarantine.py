"""Candidates that are not run again, lest they end worker after worker, or sitting after sitting."""

from __future__ import annotations

from collections.abc import Iterable

from optuna.trial import FrozenTrial

from evomerge.archive.study import StudyRecord
from evomerge.archive.trials import CANONICAL, ENDED_WORKERS, Asked
from evomerge.dispatch.job import Job
from evomerge.types import Failed

SITTINGS = 5
"""How many sittings in a row may die with a candidate at the same job (ADR 20)."""
_SUSPECT = 2
_ENOUGH_WORKERS = 2


class Quarantine:
    """Knows which recipes ended their workers, and with which candidates at an evaluator sittings died.

    A sitting may have died of any of them, or of none. So each is asked alone, by and by, once two sittings
    have died with it: only what is under way when the next one dies can be to blame.
    """

    def __init__(self, study: StudyRecord) -> None:
        self._study = study
        self._ended: dict[str, int] = {}  # the trial that ended workers, by the key of its recipe
        self._left: dict[int, Asked] = {}  # by an earlier sitting
        self._out: set[int] = set()  # trials that an evaluator has a job of

    def restore(self, trials: Iterable[FrozenTrial]) -> None:
        """Learn the trials of earlier sittings."""
        for trial in trials:
            key, ended = (trial.user_attrs.get(name) for name in (CANONICAL, ENDED_WORKERS))
            if key is not None and ended is not None:
                self._learn(trial.number, key, ended)

    def learn(self, number: int, key: str, failed: Failed) -> None:
        """Refuse later candidates that build the same, if this one ended its workers."""
        self._learn(number, key, failed.ended_workers)

    def _learn(self, number: int, key: str, ended: int) -> None:
        if ended >= _ENOUGH_WORKERS:
            self._ended.setdefault(key, number)

    def know(self, left: Iterable[Asked]) -> None:
        """Know what earlier sittings left under way from what is new."""
        self._left = {asked.number: asked for asked in left}

    def refusal(self, asked: Asked, key: str | None) -> Failed | None:
        """Return why a candidate is not run; None if it is. Without `key`, it has results already.

        A baseline is tried in spite of what became of the same recipe: there are few, and what ended their
        workers, as a short time limit, may have been put right.
        """
        if asked.died >= SITTINGS:
            return Failed(
                reason=f"{asked.died} sittings of the search died while it was at the same job, so it is not "
                "tried again",
                ended_workers=asked.died,
            )
        earlier = self._ended.get(key) if key is not None and asked.label is None else None
        if earlier is None:
            return None
        return Failed(reason=f"it is trial {earlier} again, which ended its workers, so it is not tried")

    def may_go(self, job: Job) -> bool:
        """Return whether a candidate may be given a job now: not where it, or another, has to be alone."""
        if self._suspect(job.trial):
            return not self._out
        return not any(map(self._suspect, self._out))

    def goes(self, job: Job) -> None:
        """Count this sitting against a candidate, should it die, as the candidate is given a job.

        One that is new in this sitting counts by having its recipe noted. One that gets past the job that
        earlier sittings died at is innocent of those.
        """
        self._out.add(job.trial)
        if (asked := self._left.get(job.trial)) is not None:
            at = _name(job)
            before = asked.died if asked.died_at in (None, at) else 0
            self._study.count_deaths(job.trial, before + 1, at)

    def comes_back(self, number: int) -> None:
        """Let others be given jobs, if it was alone; until its own next one it still counts."""
        self._out.discard(number)

    def waits(self, number: int) -> None:
        """Do not count this sitting against a candidate while others are at the evaluators."""
        if number in self._left:
            self.acquit(self._left[number])

    def acquit(self, asked: Asked) -> None:
        """Do not count this sitting against a candidate."""
        self._study.count_deaths(asked.number, asked.died, asked.died_at)

    def _suspect(self, number: int) -> bool:
        return number in self._left and self._left[number].died >= _SUSPECT


def _name(job: Job) -> str:
    if job.identify:
        return "identify"
    return "all" if job.look is None else f"look {job.look}"
