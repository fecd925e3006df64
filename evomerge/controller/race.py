"""The race of a search: after each look at a candidate, whether to go on, wait for others or give it up.

Rules and their measured error rates: Maron and Moore 1993 (https://papers.nips.cc/paper/841) race by bounds
on the mean; here items are paired with those of a rival that has all of them, which takes a fraction of the
items. `comparison/racing.py` holds the rules, this file who is compared with whom.
"""

from __future__ import annotations

import math
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from evomerge.archive.front import ParetoArchive
from evomerge.archive.record import RunRecord
from evomerge.archive.trials import Halved
from evomerge.comparison.ease import Ease
from evomerge.comparison.estimate import greg
from evomerge.comparison.items import compare_items
from evomerge.comparison.paired import Difference
from evomerge.comparison.racing import Halving, rung_looks, surely_outside
from evomerge.comparison.rivals import Leads, Rivals
from evomerge.evaluate.looks import scores_of
from evomerge.types import ItemScores, Measure, Scored

_COLD_START = 20
_LARGEST_EXPONENT = 700.0  # of a float


class Verdict(Enum):
    """What becomes of a candidate after a look."""

    GO_ON = "go on"
    WAIT = "wait"
    DROP = "drop"
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """A verdict; of a candidate that is given up, why, and of one that waits, what it will be ranked by."""

    verdict: Verdict
    reason: str = ""
    ranked_by: tuple[float, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Estimated:
    """What a candidate would score on all search items, by measure, and the variances of that."""

    scores: Mapping[str, float]
    variances: Mapping[str, float]


@dataclass
class _Known:
    """Of a measure, over all search items: how easy they are, and what they weigh on average."""

    measure: Measure
    weight: float
    ease: Ease

    def turned(self, items: ItemScores) -> list[float]:
        """Return the items' scores over the mean weight, higher being better; their mean is what counts."""
        sign = -1.0 if self.measure.aggregate == "mean" and not self.measure.higher_is_better else 1.0
        return [sign * score / self.weight for score in items.scores]

    def in_units(self, mean: float) -> tuple[float, float]:
        """Return the measure at such a mean, and how it changes with that."""
        match self.measure.aggregate:
            case "perplexity" | "weighted_perplexity":
                value = math.exp(min(-mean, _LARGEST_EXPONENT))
                return value, -value
            case "bits_per_byte":
                return -mean / math.log(2), -1 / math.log(2)
        sign = 1.0 if self.measure.higher_is_better else -1.0
        return sign * mean, sign


@dataclass
class Race:
    """Compares candidates with those that are best so far, which have all items.

    `ends` are the numbers of items at each look. Without rules nobody is given up.
    """

    record: RunRecord
    ends: tuple[int, ...] = field(init=False)
    _start: Halving = field(init=False)
    _known: dict[str, _Known] = field(default_factory=dict)
    _front: ParetoArchive | None = None
    _rivals: dict[int, Scored] = field(default_factory=dict)
    _tables: dict[str, Rivals] = field(default_factory=dict)
    _members: dict[int, Scored] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.ends = self.record.looks
        rules = self.record.race
        size = 0 if rules is None else _COLD_START if rules.cold_start is None else rules.cold_start
        self._start = Halving(size=size, rungs=rung_looks(self.ends) if size > 1 else ())

    def learn(self, number: int, scored: Scored, front: ParetoArchive) -> None:
        """Take in a trial that has all items; the rivals are the members of the `front`."""
        for measure in self.record.measures:
            self._learn_items(measure, scores_of(scored, measure))
        if front is self._front:
            return
        # of equal ones the first, so that a resumed search has the same, in whatever order they came
        distinct = {m.scores: m.trial for m in sorted(front.front, key=lambda m: m.trial, reverse=True)}
        known = {**self._rivals, number: scored}
        self._rivals = {trial: known[trial] for trial in distinct.values() if trial in known}
        self._front, self._tables = front, {}

    def _learn_items(self, measure: Measure, items: ItemScores) -> None:
        if measure.aggregate == "other" or not all(map(math.isfinite, items.scores)):
            return
        known = self._known.setdefault(measure.name, self._known_by(measure, items))
        known.ease = known.ease.add(known.turned(items))

    def _known_by(self, measure: Measure, items: ItemScores) -> _Known:
        """Return what there is to know of a measure before anybody has all items, from some of them."""
        weight = math.fsum(items.weights) / len(items.weights) if items.weights is not None else 1.0
        count = len(self.record.items[measure.task]["search"])
        return _Known(measure=measure, weight=weight, ease=Ease.unknown(count))

    @property
    def waiting(self) -> tuple[int, ...]:
        """The candidates that wait for others."""
        return self._start.waiting

    def enters_start(self, position: int) -> bool:
        """Return whether the sampled candidate of this position (from 0) is one of the first few.

        Whoever begins after these have been halved is none of them any more.
        """
        return position < self._start.size and self._start.rung == 0 and not self._start.over

    def resume_start(self, halved: Sequence[Halved], ended: Container[int]) -> None:
        """Stand where the first few stood in an earlier sitting, by what was decided of them."""
        if halved:
            expected = sum(number not in ended for number in halved[-1].kept)
            self._start.resume(len(halved), expected=expected)

    def halts(self, look: int) -> bool:
        """Return whether those of the first few that have come so far wait now."""
        return self._start.halts(look)

    def judge(self, number: int, so_far: Scored, look: int, *, first: bool) -> Judgement:
        """Return what becomes of a candidate after a look.

        `first` says whether it is one of the first few.
        """
        if look == len(self.ends) - 1:
            return self._leaving(Judgement(verdict=Verdict.DONE), first=first)
        rules = self.record.race
        assert rules is not None  # without a race there is one look
        if reason := self._hopeless(so_far, alpha=rules.alpha / (len(self.ends) - 1), margin=rules.margin):
            return self._leaving(Judgement(verdict=Verdict.DROP, reason=reason), first=first)
        if first and self._start.halts(look):
            estimated = self.estimate(so_far).scores
            ranked_by = tuple(m.oriented(estimated[m.name]) for m in self.record.objectives)
            self.arrive(number, so_far, ranked_by)
            return Judgement(verdict=Verdict.WAIT, ranked_by=ranked_by)
        return Judgement(verdict=Verdict.GO_ON)

    def arrive(self, number: int, so_far: Scored, ranked_by: Sequence[float]) -> None:
        """Let one of the first few wait for the others."""
        self._members[number] = so_far
        self._start.arrive(number, ranked_by)

    def _leaving(self, judgement: Judgement, *, first: bool) -> Judgement:
        if first:
            self._start.leave()
        return judgement

    def leave_start(self) -> None:
        """Expect one of the first few less: it failed, or had its scores from elsewhere."""
        self._start.leave()

    def release(self, *, all_are_in: bool = False) -> dict[int, Judgement]:
        """Return what becomes of those that wait, once all expected do or `all_are_in`; nothing before."""
        if not self._start.waiting or not (self._start.complete or all_are_in):
            return {}
        members, self._members = self._members, {}
        kept, dropped = self._start.decide(lambda a, b: self._tied(members[a], members[b]))
        return self.judged(Halved(kept=tuple(kept), dropped=tuple(dropped)))

    def judged(self, halved: Halved) -> dict[int, Judgement]:
        """Return what becomes of those who were halved last."""
        end = self.ends[self._start.rungs[self._start.rung - 1]]
        reason = f"of the first {self._start.size} candidates, a third goes on after {end} items"
        return {
            **{number: Judgement(verdict=Verdict.GO_ON) for number in halved.kept},
            **{number: Judgement(verdict=Verdict.DROP, reason=reason) for number in halved.dropped},
        }

    def estimate(self, so_far: Scored) -> Estimated:
        """Return what the items scored so far say of all search items."""
        scores: dict[str, float] = {}
        variances: dict[str, float] = {}
        for measure in self.record.measures:
            items = scores_of(so_far, measure)
            known = self._known.get(measure.name) or self._known_by(measure, items)
            if len(items.items) == len(known.ease.totals) or not all(map(math.isfinite, items.scores)):
                scores[measure.name], variances[measure.name] = so_far.scores[measure.name], 0.0
                continue
            found = greg(known.turned(items), known.ease)
            value, slope = known.in_units(found.mean)
            scores[measure.name], variances[measure.name] = value, found.variance * slope**2
        return Estimated(scores=scores, variances=variances)

    def _hopeless(self, so_far: Scored, *, alpha: float, margin: float) -> str | None:
        """Return why a candidate is given up: a bound it surely misses, or a rival it surely loses to."""
        asked = zip(self.record.constraints, self.record.space.constraints, strict=True)
        for measure, constraint in asked:
            if measure.aggregate == "mean" and surely_outside(
                scores_of(so_far, measure).scores, low=constraint.min, high=constraint.max, alpha=alpha
            ):
                return f"{measure.name} surely misses {' and '.join(constraint.bounds)}"
        return self._surely_worse(so_far, alpha=alpha, margin=margin)

    def _surely_worse(self, so_far: Scored, *, alpha: float, margin: float) -> str | None:
        """Return to whom a candidate surely loses, in every objective: the first such rival.

        All must hold at once, so there is nothing to correct for their number (an intersection-union test);
        those that it does not lose to in one objective are not asked about the others.
        """
        trials = list(self._rivals)
        among, found = np.arange(len(trials)), list[Leads]()
        for measure in self.record.objectives:
            if not len(among) or (known := self._known.get(measure.name)) is None:
                return None
            leads = self._table(measure, known).leads(
                known.turned(scores_of(so_far, measure)), known.ease, among
            )
            lost = leads.below(alpha, margin)
            among, found = among[lost], [each.only(lost) for each in (*found, leads)]
        if not len(among):
            return None
        differences = [leads.at(0) for leads in found]
        return f"surely worse than trial {trials[among[0]]} ({_shown(self.record.objectives, differences)})"

    def _table(self, measure: Measure, known: _Known) -> Rivals:
        """Return the rivals' scores of a measure, in their order."""
        if measure.name not in self._tables:
            rows = [known.turned(scores_of(rival, measure)) for rival in self._rivals.values()]
            self._tables[measure.name] = Rivals(rows)
        return self._tables[measure.name]

    def _tied(self, ours: Scored, theirs: Scored) -> bool:
        """Return whether ours cannot be told from theirs in some objective."""
        differences = (
            compare_items(measure, scores_of(ours, measure), scores_of(theirs, measure))
            for measure in self.record.objectives
        )
        return any(each is None or not each.below(0.025) for each in differences)


def _shown(objectives: Sequence[Measure], differences: Sequence[Difference | None]) -> str:
    return ", ".join(
        f"{measure.name} {each.mean:+.3f} on {each.count} items"
        for measure, each in zip(objectives, differences, strict=True)
        if each is not None
    )
