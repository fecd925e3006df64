"""Parents, baselines and finalists side by side: each one's score with its interval, and its gain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from evomerge.archive.run import Run, feasible, is_scored
from evomerge.comparison.own import own_interval
from evomerge.controller.closing_report import ClosingReport, ReportRow
from evomerge.controller.finalists import Baselines, reported_baselines
from evomerge.controller.gains import Comparison
from evomerge.controller.sheets import Sheet
from evomerge.types import Measure, Split

Role: TypeAlias = Literal["parent", "baseline", "chosen", "finalist"]

_BEST, _BEST_OF_EACH = 5, 3


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A model's score on so many items of one split, and its gain over the best parent there.

    The intervals are of 95 %; None where there is none, or nothing to compare with.
    """

    score: float
    items: int
    interval: tuple[float, float] | None
    gain: float | None = None
    gain_interval: tuple[float, float] | None = None
    is_rival: bool = False


@dataclass(frozen=True, kw_only=True)
class Standing:
    """One model: what it is, what it scored on the items told of, and on those it was chosen by."""

    trial: int
    title: str
    role: Role
    cells: Mapping[str, Cell]
    select: Mapping[str, float]
    search: Mapping[str, float]
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Standings:
    """All that is known of the models worth comparing, on `split` items.

    `rivals` is the best parent by measure: its title.
    """

    split: Split
    measures: tuple[Measure, ...]
    rows: tuple[Standing, ...]
    rivals: Mapping[str, str]


def standings(run: Run, report: ClosingReport | None) -> Standings:
    """Return the models on report items; on search items where the search has not ended."""
    baselines = reported_baselines(run)
    if report is None:
        rows = _so_far(run, baselines)
        return _standings(run, baselines, rows, split="search", measures=run.record.measures)
    return _standings(
        run, baselines, report.rows, split="report", measures=(*run.record.measures, *run.record.held_out)
    )


def _so_far(run: Run, baselines: Baselines) -> tuple[ReportRow, ...]:
    """Return the baselines and the best few candidates by search score, before anything was chosen."""
    candidates = [
        t for t in run.frozen_trials if is_scored(t) and feasible(t) and run.label(t.number) is None
    ]
    best: list[int] = []
    most = _BEST if len(run.record.objectives) == 1 else _BEST_OF_EACH
    for measure in run.record.objectives:
        ranked = sorted(
            candidates, key=lambda t: (-measure.oriented(t.user_attrs["scores"][measure.name]), t.number)
        )
        best += [trial.number for trial in ranked[:most]]
    return tuple(
        ReportRow(
            trial=number,
            label=baselines.labels.get(number, "candidate"),
            chosen_for=(),
            knee=False,
            search=run.scores(number),
            select=None,
            report=None,
            shrunken={},
        )
        for number in dict.fromkeys([*baselines.labels, *best])
    )


def _standings(
    run: Run, baselines: Baselines, rows: Sequence[ReportRow], *, split: Split, measures: tuple[Measure, ...]
) -> Standings:
    told = {row.trial: (row.report if split == "report" else row.search) or {} for row in rows}
    sheets = {
        number: Sheet(scores=scores, items=run.items_of(number, split))
        for number, scores in told.items()
        if scores
    }
    between = Comparison(baselines=baselines, sheets=sheets, clusters=run.record.clusters)
    rivals = {
        measure.name: best for measure in measures if (best := _best_parent(between, measure)) is not None
    }
    return Standings(
        split=split,
        measures=measures,
        rows=tuple(_standing(run, row, between, rivals, measures, split) for row in rows),
        rivals={name: baselines.labels[number] for name, number in rivals.items()},
    )


def _best_parent(between: Comparison, measure: Measure) -> int | None:
    """Return the parent with the best score in a measure."""
    return next((n for n, kinds in between.toughest(measure).items() if "parent" in kinds), None)


def _standing(
    run: Run,
    row: ReportRow,
    between: Comparison,
    rivals: Mapping[str, int],
    measures: Sequence[Measure],
    split: Split,
) -> Standing:
    shown = [measure for measure in measures if between.has(measure, row.trial)]
    return Standing(
        trial=row.trial,
        title=_title(row, split),
        role=_role(row, between.baselines),
        cells={m.name: _cell(run, m, row.trial, between, rivals.get(m.name), split) for m in shown},
        select=row.select or {},
        search=row.search,
        failed=row.failed,
    )


def _title(row: ReportRow, split: Split) -> str:
    if row.label != "candidate" or row.chosen:
        return row.title
    return f"{'finalist' if split == 'report' else 'candidate'}, trial {row.trial}"


def _role(row: ReportRow, baselines: Baselines) -> Role:
    if row.chosen:
        return "chosen"
    if row.trial in baselines.parents:
        return "parent"
    return "baseline" if row.trial in baselines.labels else "finalist"


def _cell(
    run: Run, measure: Measure, trial: int, between: Comparison, rival: int | None, split: Split
) -> Cell:
    own = between.sheets[trial]
    items, clusters = own.of(measure), run.record.clusters.get(measure.task)
    found = None if rival is None or rival == trial else between.compare(measure, trial, rival)
    return Cell(
        score=own.scores[measure.name],
        items=len(items.items) if items else len(run.record.items[measure.task][split]),
        interval=own_interval(measure, items, clusters=clusters) if items else None,
        gain=found.mean if found else None,
        gain_interval=found.interval() if found else None,
        is_rival=rival == trial,
    )
