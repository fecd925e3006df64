"""What a search cost: how its candidates ended, where the time went, what failed and why."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta

from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.run import Run, feasible, is_heir, is_scored
from evomerge.archive.trials import ENDED_WORKERS, LABEL

_SOME = 8
_NUMBERS = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?")


@dataclass(frozen=True, kw_only=True)
class Failures:
    """Candidates that failed for one reason: an example of what was said, and who they are."""

    reason: str
    trials: tuple[int, ...]
    ended_workers: int

    @property
    def named(self) -> str:
        """The first few of them by number."""
        more = f" and {len(self.trials) - _SOME} more" if len(self.trials) > _SOME else ""
        return ", ".join(map(str, self.trials[:_SOME])) + more


def ended(run: Run) -> Iterator[tuple[str, str]]:
    """Yield how many candidates ended in which way."""
    trials = run.frozen_trials
    states = [trial.state for trial in trials]
    yield "candidates", f"{len(trials)} of a budget of {run.record.space.budget}"
    yield "baselines among them", str(sum(LABEL in trial.user_attrs for trial in trials))
    yield "scored on all search items", str(sum(map(is_scored, trials)))
    yield "given up early", str(states.count(TrialState.PRUNED))
    yield (
        "with an equal one's scores",
        str(sum(t.state == TrialState.COMPLETE and is_heir(t) for t in trials)),
    )
    yield "failed", str(states.count(TrialState.FAIL))
    if unfinished := sum(not state.is_finished() for state in states):
        yield "not finished", str(unfinished)
    if run.record.constraints:
        yield "miss a constraint", str(sum(is_scored(t) and not feasible(t) for t in trials))
    yield "on the front", str(len(run.archive.front))


def spent(run: Run) -> Iterator[tuple[str, str]]:
    """Yield where items and time went, as far as they were recorded."""
    told = [t for t in run.frozen_trials if t.state in (TrialState.COMPLETE, TrialState.PRUNED)]
    every = len(told) * run.record.asked(run.record.looks[-1])
    asked = sum(map(run.asked, told))
    if every:
        yield (
            "search items scored",
            f"{asked:,} of {every:,} ({asked / every:.0%}), had all been scored in full",
        )
    merging, scoring = (
        sum(t.user_attrs.get(f"{part}_seconds", 0.0) for t in told) for part in ("merge", "score")
    )
    yield "merging", f"{_span(merging)} in all{_each(merging, told)}"
    yield "scoring", f"{_span(scoring)} in all{_each(scoring, told)}"
    begun = [t for t in run.frozen_trials if t.datetime_start and t.datetime_complete]
    if not begun:
        return
    under_way = sum(_seconds(trial) for trial in begun)
    wall = _wall(begun)
    yield (
        "waiting and overhead",
        f"{_span(max(under_way - merging - scoring, 0))} in all, of candidates under way",
    )
    yield "from first to last candidate", f"{_span(wall)}, closing round and start not counted"
    if wall > 0:
        yield (
            "candidates under way at once",
            f"{under_way / wall:.1f} on average; the number of workers is not recorded",
        )
    devices = sorted({str(t.user_attrs["device"]) for t in told if t.user_attrs.get("device")})
    yield "devices", ", ".join(devices) or "none recorded"


def _seconds(trial: FrozenTrial) -> float:
    assert trial.datetime_start is not None  # asked by the caller
    assert trial.datetime_complete is not None
    return (trial.datetime_complete - trial.datetime_start).total_seconds()


def _wall(begun: Sequence[FrozenTrial]) -> float:
    """Return for how many seconds any candidate was under way; between two sittings none is."""
    spans = sorted(
        (t.datetime_start, t.datetime_complete) for t in begun if t.datetime_start and t.datetime_complete
    )
    total, until = timedelta(), spans[0][0]
    for start, end in spans:
        if end > until:
            total += end - max(start, until)
            until = end
    return total.total_seconds()


def _each(seconds: float, trials: Sequence[FrozenTrial]) -> str:
    return f", {seconds / len(trials):.2g} s a candidate" if trials else ""


def _span(seconds: float) -> str:
    """Return a length of time for people."""
    if seconds < 100:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"


def failures(run: Run) -> tuple[Failures, ...]:
    """Return the failures by reason, the most frequent first; reasons that differ in numbers only are one."""
    groups: dict[str, list[FrozenTrial]] = {}
    for trial in run.frozen_trials:
        if trial.state == TrialState.FAIL:
            reason = str(trial.user_attrs.get("failure") or "no reason was recorded")
            groups.setdefault(_NUMBERS.sub("#", reason), []).append(trial)
    found = [
        Failures(
            reason=str(group[0].user_attrs.get("failure") or "no reason was recorded"),
            trials=tuple(trial.number for trial in group),
            ended_workers=sum(trial.user_attrs.get(ENDED_WORKERS, 0) for trial in group),
        )
        for group in groups.values()
    ]
    return tuple(sorted(found, key=lambda each: (-len(each.trials), each.trials)))
