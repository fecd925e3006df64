"""What was searched and what was found, in three sentences; and what is not there yet, in plain words."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from optuna.trial import TrialState

from evomerge.archive.run import Run, is_heir, is_scored
from evomerge.archive.trials import LABEL
from evomerge.controller.closing_report import ClosingReport, Gain
from evomerge.report.closing import nothing_found
from evomerge.report.standings import Standings


def sentences(run: Run, report: ClosingReport | None, found: Standings) -> tuple[str, ...]:
    """Return three sentences: what was searched, what was found, how sure that is."""
    return _searched(run), " ".join(_found(run, report, found)), " ".join(_sure(report))


def _searched(run: Run) -> str:
    record, trials = run.record, run.frozen_trials
    genes = len(record.genome.genes)
    states = [trial.state for trial in trials]
    scored = sum(map(is_scored, trials))
    inherited = sum(t.state == TrialState.COMPLETE and is_heir(t) for t in trials)
    counts = [f"{scored} {'was' if scored == 1 else 'were'} scored in full"]
    counts += [f"{n} given up early" for n in [states.count(TrialState.PRUNED)] if n]
    counts += [f"{inherited} equal to earlier ones" for _ in range(inherited > 0)]
    counts += [f"{n} failed" for n in [states.count(TrialState.FAIL)] if n]
    unfinished = sum(not state.is_finished() for state in states)
    counts += [f"{unfinished} not finished" for _ in range(unfinished > 0)]
    baselines = sum(LABEL in trial.user_attrs for trial in trials)
    return (
        f"evomerge searched {record.summary()['models']}, over {genes} {'gene' if genes == 1 else 'genes'} "
        f"with {record.space.sampler_choice.name} (seed {record.space.seed}), for "
        f"{' and '.join(f'{m.name} ({m.metric} {m.arrow})' for m in record.objectives)}: of "
        f"{len(trials)} candidates ({baselines} of them baselines) {_listed(counts)}."
    )


def _listed(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"


def _found(run: Run, report: ClosingReport | None, found: Standings) -> Iterator[str]:
    if report is not None and (why := nothing_found(report)):
        yield f"It found nothing to export: {why}."
        return
    if not run.archive.front:
        scored = any(map(is_scored, run.frozen_trials))
        what = (
            "No candidate that was scored meets every constraint"
            if scored
            else "No candidate has been scored"
        )
        yield f"{what}, so nothing was found yet."
        return
    told = []
    for measure in run.record.objectives:
        trial = run.best(measure.name)
        row = next((row for row in found.rows if row.trial == trial), None)
        cell = row.cells.get(measure.name) if row else None
        score = cell.score if cell else run.scores(trial)[measure.name]
        items = f"{cell.items} {found.split}" if cell else "search"
        between = f" [{cell.interval[0]:.3f}, {cell.interval[1]:.3f}]" if cell and cell.interval else ""
        told.append(f"{measure.name}: trial {trial} with {score:.3f}{between} on {items} items")
    how = "The best so far by search scores, which flatter the luckiest," if report is None else "It chose"
    joined = "; ".join(told)
    yield f"{how} for {joined}." if report is not None else f"{how} is for {joined}."


def _sure(report: ClosingReport | None) -> Iterator[str]:
    if report is None:
        yield "Nothing has been scored on report items yet, so no gain can be claimed."
        return
    if not report.gains:
        yield "There is no gain to tell."
    by_measure: dict[str, list[str]] = {}
    for gain in report.gains:
        by_measure.setdefault(gain.measure, []).append(_gain(gain))
    told = "; ".join(f"in {name} {', and '.join(gains)}" for name, gains in by_measure.items())
    if told:
        yield f"{told[0].upper()}{told[1:]}, on items that nothing was chosen by."


def _gain(gain: Gain) -> str:
    rival = f"{gain.over} (the best {' and '.join(gain.as_best)})"
    if gain.verdict == "itself":
        return f"{gain.over} itself was chosen over every candidate"
    if gain.low is None or gain.high is None:
        return f"the gain over {rival} is {gain.gain:+.3f}, which these items give no interval for"
    said = {
        "better": "proven",
        "worse": "a proven loss",
        "not proven": "not proven",
        "not known": "not known",
    }
    return (
        f"the gain over {rival} is {gain.gain:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}], {said[gain.verdict]}"
    )


def warnings(run: Run, report: ClosingReport | None) -> Iterator[str]:
    """Yield what a reader must know first: that the search has not ended, or nothing was scored."""
    states = [trial.state for trial in run.frozen_trials]
    again = f"`evomerge search {shlex.quote(str(run.folder.path / 'space.yaml'))} --resume`"
    if not states:
        yield "No candidate has been asked for yet."
    elif states.count(TrialState.FAIL) == len(states):
        yield f"All {len(states)} candidates failed; the reasons are below, under failures."
    if report is None:
        yield (
            f"This search has not ended, or was interrupted: {run.finished} candidates are finished, and "
            "nothing was scored on select or report items. All scores here are on search items. "
            f"{again} continues it."
        )
    elif report.finished != run.finished:
        yield (
            f"The search has gone on since its closing report was made, of {report.finished} candidates; "
            f"{run.finished} are finished now. Who was chosen and the scores on report items are as of then. "
            f"{again} writes the closing report anew."
        )
