"""What a search has found so far: counts, the best, the baselines, the front."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from evomerge.archive.front import Member, ParetoArchive
from evomerge.archive.record import RunRecord
from evomerge.dispatch.job import Crew
from evomerge.types import Measure

_HOPELESS = 30


@dataclass(frozen=True, kw_only=True)
class Best:
    """The best of one objective: among all feasible candidates, and among the baselines."""

    objective: Measure
    score: float
    trial: int
    baseline: float | None


@dataclass(frozen=True, kw_only=True)
class Snapshot:
    """How far a search is, for people to look at.

    Sampled are those that are no baselines and have scores of their own; `items` of `all_items` were scored,
    the latter being what it would have taken to score all those candidates on all items. `crew` is what the
    evaluators are doing, where that is known; `closing` tells that the finalists are scored on other items.
    """

    budget: int
    scored: int
    dropped: int
    inherited: int
    sampled: int
    failed: int
    sampled_failed: int
    running: int
    finished_now: int
    seconds: float
    best: tuple[Best, ...]
    front: int
    hypervolume: float | None
    last_failure: str | None
    items: int
    all_items: int
    crew: Crew | None = None
    closing: bool = False

    @property
    def finished(self) -> int:
        """Trials scored, given up or failed, in this and earlier sittings."""
        return self.scored + self.dropped + self.inherited + self.failed

    @property
    def per_minute(self) -> float:
        """Candidates finished per minute in this sitting."""
        return 60 * self.finished_now / self.seconds if self.seconds > 0 else 0.0


@dataclass
class Tally:
    """Counts results as they come in, whether from this sitting or an earlier one."""

    record: RunRecord
    scored: int = 0
    dropped: int = 0
    inherited: int = 0
    failed: int = 0
    sampled_failed: int = 0
    archive: ParetoArchive = field(default_factory=ParetoArchive)
    last_failure: str | None = None
    items: int = 0
    _baselines: dict[int, tuple[float, ...]] = field(default_factory=dict)
    _best: tuple[ParetoArchive, int, tuple[Best, ...]] | None = None  # of a front, after so many baselines
    _volume: tuple[ParetoArchive, list[float], float] | None = None  # of a front, from a point
    _started: float = field(default_factory=time.monotonic)
    _finished_before: int = 0
    _failed_before: int = 0
    _sampled_failed_before: int = 0

    @property
    def finished(self) -> int:
        """Trials scored, given up or failed."""
        return self.scored + self.dropped + self.inherited + self.failed

    @property
    def _all_items(self) -> int:
        """The search items of all tasks that are searched."""
        return self.record.asked(self.record.looks[-1])

    @property
    def sampled(self) -> int:
        """Trials with scores of their own, on all items or some, that are no baselines."""
        return self.scored + self.dropped - len(self._baselines)

    def begin(self) -> None:
        """Start this sitting's clock; what was counted so far belongs to earlier ones."""
        self._finished_before, self._started = self.finished, time.monotonic()
        self._failed_before, self._sampled_failed_before = self.failed, self.sampled_failed

    def hopeless(self, *, baselines: int) -> bool:
        """Return whether in this sitting all `baselines` failed, or the first thirty sampled candidates did.

        Models that are sound by themselves cannot be scored here, or no merge of them can.
        """
        if self.scored == 0:
            return self.failed - self._failed_before >= baselines
        sampled_failed = self.sampled_failed - self._sampled_failed_before
        return self.sampled + self.inherited == 0 and sampled_failed >= _HOPELESS

    def add_scored(self, trial: int, scores: Mapping[str, float], *, baseline: bool, feasible: bool) -> bool:
        """Count a scored trial; return whether the front changed."""
        self.scored += 1
        self.items += self._all_items
        oriented = tuple(m.oriented(scores[m.name]) for m in self.record.objectives)
        if baseline:
            self._baselines[trial] = oriented
        before = self.archive
        if feasible:
            self.archive = before.add(Member(trial=trial, scores=oriented))
        return self.archive is not before

    def add_dropped(self, items: int) -> None:
        """Count a trial that was given up after `items` items, all tasks together."""
        self.dropped += 1
        self.items += items

    def add_inherited(self, items: int = 0) -> None:
        """Count a trial that has the scores of an equivalent earlier one, after `items` items of its own."""
        self.inherited += 1
        self.items += items

    def add_failed(self, reason: str, *, baseline: bool) -> None:
        """Count a failed trial."""
        self.failed += 1
        self.sampled_failed += not baseline
        self.last_failure = reason

    def hypervolume(self) -> float | None:
        """Return what the front dominates beyond the worst baselines; None before any is scored.

        The reference point takes each objective from the baseline that is worst in it.
        """
        if not self._baselines:
            return None
        worst = [min(column) for column in zip(*self._baselines.values(), strict=True)]
        if self._volume is None or self._volume[0] is not self.archive or self._volume[1] != worst:
            self._volume = self.archive, worst, self.archive.hypervolume(worst)
        return self._volume[2]

    def snapshot(self, *, budget: int, running: int) -> Snapshot:
        """Return how far the search is."""
        return Snapshot(
            budget=budget,
            scored=self.scored,
            dropped=self.dropped,
            inherited=self.inherited,
            sampled=self.sampled,
            failed=self.failed,
            sampled_failed=self.sampled_failed,
            running=running,
            finished_now=self.finished - self._finished_before,
            seconds=time.monotonic() - self._started,
            best=self._bests(),
            front=len(self.archive.front),
            hypervolume=self.hypervolume(),
            last_failure=self.last_failure,
            items=self.items,
            all_items=self._all_items * (self.scored + self.dropped + self.inherited),
        )

    def _bests(self) -> tuple[Best, ...]:
        """Return the best of each objective; none while the front is empty."""
        baselines = len(self._baselines)
        if self._best is None or self._best[0] is not self.archive or self._best[1] != baselines:
            count = len(self.record.objectives) if self.archive.front else 0
            self._best = self.archive, baselines, tuple(map(self._best_of, range(count)))
        return self._best[2]

    def _best_of(self, index: int) -> Best:
        objective = self.record.objectives[index]
        top = max(self.archive.front, key=lambda member: (member.scores[index], -member.trial))
        baselines = [scores[index] for scores in self._baselines.values()]
        return Best(
            objective=objective,
            score=objective.oriented(top.scores[index]),
            trial=top.trial,
            baseline=objective.oriented(max(baselines)) if baselines else None,
        )
