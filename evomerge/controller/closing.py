"""The end of a search: the winners and the baselines once more, on items the search never saw."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from evomerge.archive.files import write_json
from evomerge.archive.folder import RunFolder
from evomerge.archive.run import Run
from evomerge.archive.study import LABEL
from evomerge.controller.live import LiveRun
from evomerge.dispatch.job import Dispatcher, Job
from evomerge.evaluate.statistics import mean_interval
from evomerge.interrupts import held
from evomerge.space.baselines import BASE, baselines, greedy_soup, parent
from evomerge.types import Evaluation, Measure, Scored

_MOST_WINNERS = 10


@dataclass(frozen=True, kw_only=True)
class ReportRow:
    """A trial's scores on the search items and on the report items; `report` is None if it failed.

    `best_of` names the objectives it is the best of.
    """

    trial: int
    label: str
    best_of: tuple[str, ...]
    search: Mapping[str, float]
    report: Mapping[str, float] | None


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How much better (positive) a trial is than the best parent on the same report items.

    `low` and `high` bound the 95% interval of the paired mean difference; None where the metric is
    not a mean over items. Where a parent is itself the best, `trial` is that parent.
    """

    objective: str
    trial: int
    parent: int
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
    """The closing table and the gains it supports.

    `feasible` says whether any candidate meets every constraint; `unmet` are the constraints that none
    meets, each with the nearest score there is.
    """

    rows: tuple[ReportRow, ...]
    gains: tuple[Gain, ...]
    feasible: bool
    unmet: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values."""
        return asdict(self)


def close_search(folder: RunFolder, run: Run, live: LiveRun, dispatcher: Dispatcher) -> ClosingReport:
    """Score baselines and winners on the report items, write `report.json`, and return it."""
    chosen = _chosen(run)
    results = _evaluate(run, dispatcher, list(chosen))
    with held():
        for number, result in results.items():
            if isinstance(result, Scored):
                live.record_scores(number, "report", result)
    winners = _winners(run)
    rows = tuple(
        ReportRow(
            trial=number,
            label=label,
            best_of=winners.get(number, ()),
            search=run.scores(number),
            report=dict(result.scores) if isinstance(result := results[number], Scored) else None,
        )
        for number, label in chosen.items()
    )
    gains = tuple(
        gain for measure in run.record.objectives if (gain := _gain(run, measure, results)) is not None
    )
    report = ClosingReport(rows=rows, gains=gains, feasible=bool(run.archive.front), unmet=tuple(_unmet(run)))
    write_json(folder.report, report.to_json())
    return report


def _unmet(run: Run) -> Iterator[str]:
    """Yield the constraints that no scored trial meets, with the nearest score."""
    scored = [trial.user_attrs["scores"] for trial in run.frozen_trials if trial.values]
    for measure, constraint in zip(run.record.constraints, run.record.space.constraints, strict=True):
        nearest = min((scores[measure.name] for scores in scored), key=constraint.missed_by)
        if constraint.missed_by(nearest) > 0:
            yield f"{measure.name} {' and '.join(constraint.bounds)} (nearest {nearest:.3f})"


def _chosen(run: Run) -> dict[int, str]:
    """Return the trials to report, with labels: baselines, the best of each objective, the front."""
    chosen = _shown_baselines(run)
    for number, names in _winners(run).items():
        best = f"best {', '.join(names)}"
        chosen[number] = f"{chosen[number]}, {best}" if number in chosen else best
    for member in run.archive.front[:_MOST_WINNERS]:
        chosen.setdefault(member.trial, "front")
    return chosen


def _baselines(run: Run) -> dict[int, str]:
    """Return the labels of the scored baselines by trial."""
    return {
        trial.number: str(trial.user_attrs[LABEL])
        for trial in run.frozen_trials
        if LABEL in trial.user_attrs and trial.values
    }


def _shown_baselines(run: Run) -> dict[int, str]:
    """Return the baselines to report: of a greedy soup its last average, told from the tried ones."""
    first = run.record.objectives[0]
    tried = [trial for trial in run.frozen_trials if LABEL in trial.user_attrs]
    scores = {
        str(trial.user_attrs[LABEL]): first.oriented(trial.user_attrs["scores"][first.name])
        if trial.values
        else None
        for trial in tried
    }
    usual = {each.label for each in baselines(run.record.genome)}
    step = greedy_soup(run.record.genome, scores)
    shown = {}
    for number, label in _baselines(run).items():
        if step is not None and step.soup is not None and label == step.label:
            shown[number] = f"{label} (greedy soup)" if label in usual else f"greedy {label}"
        elif label in usual:
            shown[number] = label
    return shown


def _winners(run: Run) -> dict[int, tuple[str, ...]]:
    """Return the objectives that each best trial is best of."""
    found: dict[int, tuple[str, ...]] = {}
    for measure in run.record.objectives if run.archive.front else ():
        number = run.best(measure.name)
        found[number] = (*found.get(number, ()), measure.name)
    return found


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


def _gain(run: Run, measure: Measure, results: Mapping[int, Evaluation]) -> Gain | None:
    """Return the gain of the best trial over the best parent (by report score) in one objective."""
    scored = {n: r for n, r in results.items() if isinstance(r, Scored)}
    labels = {BASE, *(parent(name) for name in run.record.space.parents)}
    parents = {n: label for n, label in _baselines(run).items() if n in scored and label in labels}
    best = run.best(measure.name) if run.archive.front else None
    if best is None or best not in scored or not parents:
        return None
    rival = max(parents, key=lambda n: measure.oriented(scored[n].scores[measure.name]))
    if best in parents:
        rival = best
    ours, theirs = (_items(scored[n], measure) for n in (best, rival))
    difference = measure.oriented(scored[best].scores[measure.name]) - measure.oriented(
        scored[rival].scores[measure.name]
    )
    low, high = _interval(ours, theirs, difference, measure)
    return Gain(
        objective=measure.name,
        trial=best,
        parent=rival,
        over=parents[rival],
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
    return mean_interval(pairs)
