"""A trial's attributes for people, from what the search recorded for itself and from the closing report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.record import RunRecord
from evomerge.archive.run import feasible, is_heir
from evomerge.archive.trials import ESTIMATE, INHERITED, ITEMS, KEY, LABEL, SCORES
from evomerge.controller.closing_report import ClosingReport, ReportRow
from evomerge.space.baselines import BASE, parent

_DIGITS = 4


@dataclass(frozen=True, kw_only=True)
class Context:
    """What is known beside a trial: the best parent's search score by measure, oriented; the closing rows."""

    record: RunRecord
    best_parent: Mapping[str, float]
    rows: Mapping[int, ReportRow] = field(default_factory=dict)


def context(record: RunRecord, trials: list[FrozenTrial], report: ClosingReport | None) -> Context:
    """Return what is known beside the trials themselves."""
    labels = {BASE, *map(parent, record.space.parents)}
    scores = [
        t.user_attrs[SCORES] for t in trials if t.user_attrs.get(LABEL) in labels and SCORES in t.user_attrs
    ]
    return Context(
        record=record,
        best_parent={
            measure.name: max(measure.oriented(each[measure.name]) for each in scores)
            for measure in record.measures
            if scores
        },
        rows={row.trial: row for row in report.rows} if report is not None else {},
    )


def readable(trial: FrozenTrial, known: Context) -> dict[str, Any]:
    """Return what a person may want to know of a trial, by names that need no explanation."""
    recorded, row = trial.user_attrs, known.rows.get(trial.number)
    told: dict[str, Any] = {
        "model": recorded.get(LABEL) or (row.title if row else "candidate"),
        "method": recorded.get("method"),
        "outcome": outcome(trial),
        **_scores(trial, known),
        **(_closing(row) if row else {}),
        "search items": _items(trial, known.record),
        "seconds merging": recorded.get("merge_seconds"),
        "seconds scoring": recorded.get("score_seconds"),
        "device": recorded.get("device"),
        "recipe key": recorded.get(KEY),
        "hypervolume": _rounded(recorded.get("hypervolume")),
    }
    return {name: value for name, value in told.items() if value is not None}


def outcome(trial: FrozenTrial) -> str:
    """Return how a trial ended, in words."""
    recorded = trial.user_attrs
    if trial.state == TrialState.FAIL:
        return f"failed: {recorded.get('failure', 'no reason was recorded')}"
    if not trial.state.is_finished():
        return "under way" if trial.state == TrialState.RUNNING else "waiting"
    again = f"equal to trial {recorded[INHERITED]}, and has its scores" if is_heir(trial) else ""
    if trial.state == TrialState.PRUNED:
        return f"given up early: {again or recorded.get('dropped', 'no reason was recorded')}"
    if not feasible(trial):
        missed = [name for name, violation in trial.constraints.items() if violation > 0]
        return f"misses a constraint ({', '.join(missed)}), so it never counts as best"
    return again or "scored on all search items"


def _scores(trial: FrozenTrial, known: Context) -> dict[str, float]:
    """Return a trial's search scores, or their estimates, and its gains over the best parent."""
    kind = "search items" if SCORES in trial.user_attrs else "search items, estimated"
    scores: Mapping[str, float] = trial.user_attrs.get(SCORES) or trial.user_attrs.get(ESTIMATE) or {}
    told = {}
    for measure in known.record.measures if scores else ():
        score = scores[measure.name]
        told[f"{measure.name}, {kind}"] = round(score, _DIGITS)
        if measure.name in known.best_parent:
            gain = measure.oriented(score) - known.best_parent[measure.name]
            told[f"{measure.name}, gain over best parent, {kind}"] = round(gain, _DIGITS)
    return told


def _closing(row: ReportRow) -> dict[str, float]:
    both = {"report": row.report, "select": row.select}
    return {
        f"{name}, {split} items": round(score, _DIGITS)
        for split, scores in both.items()
        for name, score in (scores or {}).items()
    }


def _items(trial: FrozenTrial, record: RunRecord) -> int | None:
    """Return how many search items, all tasks together, a trial was scored on itself."""
    if not trial.state.is_finished() or trial.state == TrialState.FAIL:
        return None
    if trial.state == TrialState.PRUNED and is_heir(trial):
        return 0
    end = trial.user_attrs.get(ITEMS, 0)
    return record.asked(end if is_heir(trial) or trial.state == TrialState.PRUNED else record.looks[-1])


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)
