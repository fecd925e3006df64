"""The end of a search: a last round on items the search never saw, and the chosen scored once on others."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeAlias

from optuna.trial import TrialState

from evomerge.archive.files import write_json
from evomerge.archive.folder import RunFolder
from evomerge.archive.run import Run, is_scored
from evomerge.controller.closing_report import ClosingReport, Effort, ReportRow
from evomerge.controller.finalists import Baselines, Choice, choose, finalists, reported_baselines
from evomerge.controller.gains import Comparison, finals, gains, held_out_gains
from evomerge.controller.sheets import Sheet, as_recorded, for_choosing, recorded, searched
from evomerge.controller.shrinkage import Spread, spread
from evomerge.dispatch.job import Dispatcher, Job
from evomerge.interrupts import held
from evomerge.types import Scored, Split

Record: TypeAlias = Callable[[int, Split, Scored], None]
"""Keeps what a trial scored on the items of a split."""


def close_search(folder: RunFolder, run: Run, record: Record, dispatcher: Dispatcher) -> ClosingReport:
    """Choose among the finalists on select items, score the chosen on report items, write `report.json`.

    The baselines are scored on both, too. Where there are no select items, search scores choose.
    """
    baselines, last = reported_baselines(run), finalists(run)
    sheets: dict[Split, dict[int, Sheet]] = {"search": searched(run), "select": {}, "report": {}}
    asked: dict[Split, tuple[int, ...]] = {"search": tuple(sheets["search"])}
    rounds = _Rounds(run, record, dispatcher)
    asked["select"] = (*baselines.labels, *last) if last and _has_select(run) else ()
    sheets["select"] = rounds.score(asked["select"], "select")
    deciding = for_choosing(run, sheets["search"], sheets["select"])
    choice = choose(run, last, deciding)
    asked["report"] = (*baselines.labels, *choice.trials)
    sheets["report"] = rounds.score(asked["report"], "report")
    report = compose(run, baselines, last, choice, asked=asked, sheets=sheets)
    write_json(folder.report, report.to_json())
    return report


def compose(
    run: Run,
    baselines: Baselines,
    last: Sequence[int],
    choice: Choice,
    *,
    asked: Mapping[Split, Sequence[int]],
    sheets: Mapping[Split, Mapping[int, Sheet]],
) -> ClosingReport:
    """Return what the sheets of the three splits support; `asked` says who was to be scored on which."""
    record = run.record
    spreads = [found for each in record.objectives if (found := spread(run, each, sheets["search"]))]
    deciding = Comparison(
        baselines=baselines,
        sheets=for_choosing(run, sheets["search"], sheets["select"]),
        clusters=record.clusters,
    )
    reported = Comparison(baselines=baselines, sheets=sheets["report"], clusters=record.clusters)
    return ClosingReport(
        finished=run.finished,
        chosen=choice.best,
        knee=choice.knee,
        rows=tuple(_rows(run, baselines, last, choice, spreads, asked, sheets)),
        finalists=tuple(each for m in record.objectives for each in finals(deciding, m, last)),
        gains=tuple(
            each for m in record.objectives if m.name in choice.best
            for each in gains(reported, m, choice.best[m.name])
        ),
        held_out=tuple(
            each for m in record.held_out for trial in choice.trials
            for each in held_out_gains(reported, m, trial)
        ),
        optimism=tuple(found.optimism() for found in spreads),
        feasible=bool(run.archive.front),
        unmet=tuple(_unmet(run)),
        effort=_effort(run),
    )  # fmt: skip


def _rows(
    run: Run,
    baselines: Baselines,
    last: Sequence[int],
    choice: Choice,
    spreads: Sequence[Spread],
    asked: Mapping[Split, Sequence[int]],
    sheets: Mapping[Split, Mapping[int, Sheet]],
) -> Iterator[ReportRow]:
    for number in dict.fromkeys([*baselines.labels, *last]):
        scores = {split: found[number].scores for split, found in sheets.items() if number in found}
        label = baselines.labels.get(number) or run.label(number) or "candidate"
        yield ReportRow(
            trial=number,
            label=label,
            chosen_for=tuple(name for name, best in choice.best.items() if best == number),
            knee=number == choice.knee,
            search=dict(scores["search"]),
            select=dict(scores["select"]) if "select" in scores else None,
            report=dict(scores["report"]) if "report" in scores else None,
            shrunken={s.measure.name: s.shrunken(scores["search"][s.measure.name]) for s in spreads}
            if run.label(number) is None
            else {},
            failed=tuple(split for split in asked if number in asked[split] and split not in scores),
        )


def _unmet(run: Run) -> Iterator[str]:
    """Yield the constraints that no scored trial meets, with the nearest score."""
    scored = [t.user_attrs["scores"] for t in run.frozen_trials if t.state == TrialState.COMPLETE]
    for measure, constraint in zip(run.record.constraints, run.record.space.constraints, strict=True):
        nearest = min((scores[measure.name] for scores in scored), key=constraint.missed_by)
        if constraint.missed_by(nearest) > 0:
            yield f"{measure.name} {' and '.join(constraint.bounds)} (nearest {nearest:.3f})"


def _effort(run: Run) -> Effort:
    """Return what the search cost, and would have cost if all were scored on all items."""
    ended = [t for t in run.frozen_trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    scored, dropped = (
        sum(map(is_scored, ended)),
        sum(t.state == TrialState.PRUNED for t in ended),
    )
    return Effort(
        scored=scored,
        dropped=dropped,
        inherited=len(ended) - scored - dropped,
        items=sum(map(run.asked, ended)),
        all_items=len(ended) * run.record.asked(run.record.looks[-1]),
    )


def _has_select(run: Run) -> bool:
    """Return whether any objective can be judged on select items."""
    return any(run.record.items[measure.task].get("select") for measure in run.record.objectives)


class _Rounds:
    """Scores trials of a run once more, on other items."""

    def __init__(self, run: Run, record: Record, dispatcher: Dispatcher) -> None:
        self._run, self._record, self._dispatcher = run, record, dispatcher

    def score(self, numbers: Sequence[int], split: Split) -> dict[int, Sheet]:
        """Return what the trials score on a split, recorded; those that fail are missing.

        What an earlier sitting recorded is not scored again.
        """
        wanted = list(dict.fromkeys(numbers))
        kept = recorded(self._run, split) if wanted else {}
        waiting = [Job(trial=n, recipe=self._run.recipe(n), split=split) for n in wanted if n not in kept]
        found = dict(kept)
        flying = 0
        while waiting or flying:
            while waiting and flying < self._dispatcher.capacity:
                self._dispatcher.submit(waiting.pop(0))
                flying += 1
            for job, outcome in self._dispatcher.collect():
                flying -= 1
                if isinstance(outcome, Scored):
                    with held():
                        self._record(job.trial, split, outcome)
                    found[job.trial] = as_recorded(self._run, split, outcome)
        return {number: found[number] for number in wanted if number in found}
