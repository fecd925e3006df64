"""The end of a search: the winners and the baselines once more, on items the search never saw."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.archive.files import write_json
from evomerge.archive.folder import RunFolder
from evomerge.archive.run import Run
from evomerge.archive.study import LABEL
from evomerge.controller.live import LiveRun
from evomerge.dispatch.job import Dispatcher, Job
from evomerge.interrupts import held
from evomerge.types import Evaluation, Failed, Measure, Scored

_MOST_WINNERS = 10
_Z = statistics.NormalDist().inv_cdf(0.975)


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """A trial's scores on the search items and on the report items; `report` is None if it failed."""

    trial: int
    label: str
    search: Mapping[str, float]
    report: Mapping[str, float] | None


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much better (positive) a trial is than the best parent on the same report items.

    `low` and `high` bound the 95% interval of the paired mean difference; None where the metric is
    not a mean over items.
    """

    objective: str
    trial: int
    over: str
    gain: float
    low: float | None
    high: float | None
    items: int

    @property
    def proven(self) -> bool:
        """Whether the interval lies above zero."""
        return self.low is not None and self.low > 0


@dataclass(frozen=True, kw_only=True)
class ClosingReport:
    """The closing table and the gains it supports."""

    rows: tuple[ReportRow, ...]
    gains: tuple[Gain, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return {"rows": [asdict(row) for row in self.rows], "gains": [asdict(g) for g in self.gains]}


def close_search(folder: RunFolder, run: Run, live: LiveRun, dispatcher: Dispatcher) -> ClosingReport:
    """Score baselines and winners on the report items, write `report.json`, and return it."""
    chosen = _chosen(run)
    results = _evaluate(run, dispatcher, list(chosen))
    with held():
        for number, result in results.items():
            if isinstance(result, Scored):
                live.record_report(number, result)
    rows = tuple(
        ReportRow(
            trial=number,
            label=label,
            search=run.scores(number),
            report=dict(result.scores) if isinstance(result := results[number], Scored) else None,
        )
        for number, label in chosen.items()
    )
    gains = tuple(
        gain
        for measure in run.record.objectives
        if (gain := _gain(run, measure, results, chosen)) is not None
    )
    report = ClosingReport(rows=rows, gains=gains)
    write_json(folder.report, report.to_json())
    return report


def read_report(content: Mapping[str, Any]) -> ClosingReport:
    """Return the report that `to_json` wrote."""
    return ClosingReport(
        rows=tuple(ReportRow(**row) for row in content["rows"]),
        gains=tuple(Gain(**gain) for gain in content["gains"]),
    )


def _chosen(run: Run) -> dict[int, str]:
    """Return the trials to report, with labels: baselines, the best of each objective, the front."""
    chosen = {
        trial.number: str(trial.user_attrs[LABEL])
        for trial in run.frozen_trials
        if LABEL in trial.user_attrs and trial.values
    }
    for measure in run.record.objectives if run.archive.front else ():
        number = run.best(measure.name)
        best = f"best {measure.name}"
        chosen[number] = f"{chosen[number]}, {best}" if number in chosen else best
    for member in run.archive.front[:_MOST_WINNERS]:
        chosen.setdefault(member.trial, "front")
    return chosen


def _evaluate(run: Run, dispatcher: Dispatcher, numbers: Sequence[int]) -> dict[int, Evaluation]:
    waiting = [Job(trial=n, recipe=run.recipe(n), split="report") for n in numbers]
    results: dict[int, Evaluation] = {}
    flying = 0
    while len(results) < len(numbers):
        while waiting and flying < dispatcher.capacity:
            dispatcher.submit(waiting.pop(0))
            flying += 1
        for job, evaluation in dispatcher.collect():
            results[job.trial] = evaluation
            flying -= 1
    return results


def _gain(
    run: Run,
    measure: Measure,
    results: Mapping[int, Evaluation],
    labels: Mapping[int, str],
) -> Gain | None:
    """Return the gain of the best trial over the best parent (by report score) in one objective."""
    scored = {n: r for n, r in results.items() if not isinstance(r, Failed)}
    parents = [n for n in scored if labels[n].startswith(("base", "parent"))]
    best = run.best(measure.name) if run.archive.front else None
    if best is None or best not in scored or not parents:
        return None
    rival = max(parents, key=lambda n: measure.oriented(scored[n].scores[measure.name]))
    ours, theirs = (_items(scored[n], measure) for n in (best, rival))
    difference = measure.oriented(scored[best].scores[measure.name]) - measure.oriented(
        scored[rival].scores[measure.name]
    )
    low, high = _interval(ours, theirs, difference, measure)
    return Gain(
        objective=measure.name,
        trial=best,
        over=labels[rival],
        gain=difference,
        low=low,
        high=high,
        items=len(ours),
    )


def _items(scored: Scored, measure: Measure) -> tuple[float, ...]:
    return next(
        found.scores
        for found in scored.items
        if (found.task, found.metric, found.filter) == (measure.task, measure.metric, measure.filter)
    )


def _interval(
    ours: Sequence[float], theirs: Sequence[float], difference: float, measure: Measure
) -> tuple[float | None, float | None]:
    """Return the 95% interval of the paired mean difference, where the score is that mean."""
    pairs = [measure.oriented(a) - measure.oriented(b) for a, b in zip(ours, theirs, strict=True)]
    if len(pairs) < 2 or not math.isclose(statistics.fmean(pairs), difference, abs_tol=1e-9):
        return None, None
    half = _Z * statistics.stdev(pairs) / math.sqrt(len(pairs))
    return difference - half, difference + half
