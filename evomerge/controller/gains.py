"""How much better the chosen trials are than parents and baselines, and how finalists fare with these."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import get_args

from evomerge.comparison.final import holm
from evomerge.comparison.items import compare_items
from evomerge.comparison.paired import Difference
from evomerge.controller.closing_report import Finalist, Gain, Rival, Verdict
from evomerge.controller.finalists import Baselines
from evomerge.controller.sheets import Sheet
from evomerge.types import Measure

_ONE_SIDED = 0.025  # what a 95 % interval leaves out on either side

Clusters = Mapping[str, Mapping[str, str]]
"""Which cluster an item belongs to, by task and the item's content hash; tasks without any are left out."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The models to compare with, and what all scored on the items of a split."""

    baselines: Baselines
    sheets: Mapping[int, Sheet]
    clusters: Clusters

    def toughest(self, measure: Measure) -> dict[int, tuple[Rival, ...]]:
        """Return the best parent and the best baseline in a measure, and which of the two each is."""
        found: dict[int, tuple[Rival, ...]] = {}
        numbers: tuple[tuple[Rival, Sequence[int]], ...] = (
            ("parent", [n for n in self.baselines.labels if n in self.baselines.parents]),
            ("baseline", list(self.baselines.labels)),
        )
        for kind, candidates in numbers:
            there = [number for number in candidates if self.has(measure, number)]
            if there:
                best = max(there, key=lambda n: measure.oriented(self.sheets[n].scores[measure.name]))
                found[best] = (*found.get(best, ()), kind)
        return found

    def has(self, measure: Measure, trial: int) -> bool:
        """Return whether a trial has a score in a measure."""
        return trial in self.sheets and measure.name in self.sheets[trial].scores

    def compare(self, measure: Measure, ours: int, theirs: int) -> Difference | None:
        """Return the paired difference of two trials; None where the measure has no interval."""
        items, others = self.sheets[ours].of(measure), self.sheets[theirs].of(measure)
        if items is None or others is None:
            return None
        return compare_items(measure, items, others, clusters=self.clusters.get(measure.task))


def gains(between: Comparison, measure: Measure, trial: int) -> Iterator[Gain]:
    """Yield the gains of the trial chosen for an objective over the best parent and the best baseline.

    There is one if they are the same. A trial that is a parent itself is not compared with others, and
    likewise a baseline: there is nothing gained over those it was chosen from.
    """
    if not between.has(measure, trial):
        return
    own = tuple(kind for kind in get_args(Rival) if _is(between.baselines, trial, kind))
    if own:
        yield _itself(between, measure, trial, own)
    for rival, best_of in between.toughest(measure).items():
        if others := tuple(kind for kind in best_of if kind not in own):
            yield _gain(between, measure, trial, rival, others)


def held_out_gains(between: Comparison, measure: Measure, trial: int) -> Iterator[Gain]:
    """Yield the gains of a trial, baseline or not, in what it was not chosen by, over the same two rivals."""
    if between.has(measure, trial):
        for rival, best_of in between.toughest(measure).items():
            if rival != trial:
                yield _gain(between, measure, trial, rival, best_of)


def _is(baselines: Baselines, trial: int, kind: Rival) -> bool:
    return trial in (baselines.parents if kind == "parent" else baselines.labels)


def _itself(between: Comparison, measure: Measure, trial: int, kinds: tuple[Rival, ...]) -> Gain:
    items = between.sheets[trial].of(measure)
    return Gain(
        measure=measure.name,
        trial=trial,
        rival=trial,
        over=between.baselines.labels[trial],
        as_best=kinds,
        gain=0.0,
        low=None,
        high=None,
        p=None,
        items=len(items.items) if items else 0,
        verdict="itself",
    )


def _gain(between: Comparison, measure: Measure, trial: int, rival: int, kinds: tuple[Rival, ...]) -> Gain:
    ours, theirs = (between.sheets[n].scores[measure.name] for n in (trial, rival))
    found = between.compare(measure, trial, rival)
    low, high = found.interval() if found else (None, None)
    items = between.sheets[trial].of(measure)
    return Gain(
        measure=measure.name,
        trial=trial,
        rival=rival,
        over=between.baselines.labels[rival],
        as_best=kinds,
        gain=measure.oriented(ours) - measure.oriented(theirs),
        low=low,
        high=high,
        p=found.p_value() if found else None,
        items=len(items.items) if items else 0,
        verdict=verdict(found),
    )


def verdict(found: Difference | None) -> Verdict:
    """Return what a difference shows: better or worse only where the interval and the test agree."""
    if found is None:
        return "not known"
    low, high = found.interval()
    if low > 0 and found.above(_ONE_SIDED):
        return "better"
    return "worse" if high < 0 and found.below(_ONE_SIDED) else "not proven"


def finals(between: Comparison, measure: Measure, trials: Sequence[int]) -> Iterator[Finalist]:
    """Yield each finalist's gain over the best parent and the best baseline, p-values adjusted over them all.

    That is Holm's adjustment for as many tests as there are finalists, for each of the two rivals.
    """
    for rival, kinds in between.toughest(measure).items():
        tested = {n: d for n in trials if n != rival and (d := _compared(between, measure, n, rival))}
        adjusted = holm([difference.p_value() for difference in tested.values()])
        for kind in kinds:
            for (trial, difference), p in zip(tested.items(), adjusted, strict=True):
                yield Finalist(
                    measure=measure.name,
                    trial=trial,
                    rival=rival,
                    as_best=kind,
                    gain=difference.mean,
                    p=p,
                )


def _compared(between: Comparison, measure: Measure, trial: int, rival: int) -> Difference | None:
    return between.compare(measure, trial, rival) if trial in between.sheets else None
