"""The Pareto front: what is won in one objective is paid for in another."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations, islice

from markupsafe import Markup
from optuna.trial import FrozenTrial

from evomerge.archive.run import Run, feasible, is_scored
from evomerge.archive.trials import LABEL
from evomerge.controller.closing_report import ClosingReport
from evomerge.report.figures.drawing import (
    Figure,
    Scale,
    across,
    drawing,
    join,
    line,
    mark,
    number,
    shortened,
    spanning,
    spread,
    text,
    trace,
    upward,
)
from evomerge.report.figures.measures import axis
from evomerge.types import Measure

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 540.0, 380.0, 52.0, 16.0, 32.0, 42.0
_MOST, _MOST_PAIRS = 1500, 6
_SMALL = 0.4
"""Of the width or height of the picture: a front smaller than this is drawn once more, from near."""


@dataclass(frozen=True, kw_only=True)
class _Scales:
    across: Scale
    upward: Scale
    first: Measure
    second: Measure

    def place(self, trial: FrozenTrial) -> tuple[float, float]:
        """Return where a trial stands."""
        scores = trial.user_attrs["scores"]
        return self.across(scores[self.first.name]), self.upward(scores[self.second.name])


def fronts(run: Run, report: ClosingReport | None) -> list[Figure]:
    """Return a scatter plot for each pair of objectives; none for a single objective."""
    objectives = run.record.objectives
    trials = [trial for trial in run.frozen_trials if is_scored(trial)]
    if len(objectives) < 2 or not trials:
        return []
    pairs = list(islice(combinations(objectives, 2), _MOST_PAIRS))
    figures = [_scatter(run, report, trials, first, second) for first, second in pairs]
    if len(objectives) == 2 and (near := _near(run, trials, *pairs[0])):
        figures.append(_scatter(run, report, near, *pairs[0], title="The front from near"))
    return figures


def _near(
    run: Run, trials: Sequence[FrozenTrial], first: Measure, second: Measure
) -> list[FrozenTrial] | None:
    """Return the trials around the front, if it fills but a small part of the whole picture."""
    members = {member.trial for member in run.archive.front}
    kept, small = list(trials), False
    for measure in (first, second):
        scores = {trial.number: trial.user_attrs["scores"][measure.name] for trial in trials}
        front = [score for number, score in scores.items() if number in members]
        if not front or min(front) == max(front):
            return None
        low, high = min(front), max(front)
        small |= high - low < _SMALL * (max(scores.values()) - min(scores.values()))
        spare = 0.25 * (high - low)
        kept = [trial for trial in kept if low - spare <= scores[trial.number] <= high + spare]
    return kept if small and len(kept) > 2 else None


def _scatter(
    run: Run,
    report: ClosingReport | None,
    trials: Sequence[FrozenTrial],
    first: Measure,
    second: Measure,
    *,
    title: str = "",
) -> Figure:
    members = {member.trial for member in run.archive.front}
    chosen = {row.trial: row.roles for row in report.rows if row.chosen} if report is not None else {}
    scores = [trial.user_attrs["scores"] for trial in trials]
    scales = _Scales(
        across=spanning([each[first.name] for each in scores], _LEFT, _WIDTH - _RIGHT),
        upward=spanning([each[second.name] for each in scores], _HEIGHT - _BOTTOM, _TOP),
        first=first,
        second=second,
    )
    apart = members | set(chosen)
    plain = [t for t in trials if t.number not in apart and LABEL not in t.user_attrs]
    drawn = plain[:: -(-len(plain) // _MOST)] if len(plain) > _MOST else plain
    special = [t for t in trials if t.number in apart or LABEL in t.user_attrs]
    two = len(run.record.objectives) == 2
    parts = [
        upward(scales.upward, _LEFT, _WIDTH - _RIGHT, axis(second)),
        across(scales.across, _HEIGHT - _BOTTOM, _TOP, axis(first)),
        *(_mark(trial, members, chosen, scales) for trial in drawn),
        _stairs([t for t in trials if t.number in members], scales) if two else Markup(""),
        *(_mark(trial, members, chosen, scales) for trial in special),
        _labels([t for t in special if LABEL in t.user_attrs or t.number in chosen], chosen, scales),
    ]
    return Figure(
        title=title or f"{first.name} against {second.name}",
        svg=drawing(
            _WIDTH, _HEIGHT, parts, f"Search scores in {first.name} and {second.name}, with the front"
        ),
        caption=_caption(run, two, len(drawn), len(plain)),
        legend=_legend(trials, chosen),
    )


def _caption(run: Run, two: bool, drawn: int, plain: int) -> str:
    told = "Scores on search items, of all candidates scored on all of them. "
    told += (
        "The line bounds what the front dominates."
        if two
        else "A member of the front may look beaten here, and win in another objective."
    )
    pairs = len(run.record.objectives) * (len(run.record.objectives) - 1) // 2
    if pairs > _MOST_PAIRS:
        told += f" The first {_MOST_PAIRS} of {pairs} pairs are shown."
    return told + (f" Of {plain} others {drawn} are drawn." if drawn < plain else "")


def _legend(trials: Sequence[FrozenTrial], chosen: dict[int, str]) -> tuple[tuple[str, str], ...]:
    legend = [("front", "front"), ("candidate", "others")]
    if any(not feasible(trial) for trial in trials):
        legend.append(("infeasible", "misses a constraint"))
    legend += [("parent", "parents"), ("baseline", "other baselines")]
    return (*legend, ("chosen", "chosen")) if chosen else tuple(legend)


def _mark(trial: FrozenTrial, members: set[int], chosen: dict[int, str], scales: _Scales) -> Markup:
    label = trial.user_attrs.get(LABEL)
    kind, shape, size = "candidate", "dot", 2.8
    if not feasible(trial):
        kind = "infeasible"
    if trial.number in members:
        kind, size = "front", 3.6
    if label is not None:
        hollow = "" if feasible(trial) else " hollow"
        kind, shape, size = f"{_baseline_kind(label)}{hollow}", "square", 4.4
    if trial.number in chosen:
        kind, shape, size = "chosen", "diamond", 5
    scores = trial.user_attrs["scores"]
    told = ", ".join(f"{each.name} {number(scores[each.name])}" for each in (scales.first, scales.second))
    x, y = scales.place(trial)
    return mark(
        x,
        y,
        f"mark {kind}",
        f"trial {trial.number}{f', {label}' if label else ''}: {told}",
        shape=shape,
        size=size,
    )


def _baseline_kind(label: str) -> str:
    return "parent" if label == "base" or label.startswith("parent ") else "baseline"


def _stairs(members: Sequence[FrozenTrial], scales: _Scales) -> Markup:
    """Return the line between what the front dominates and what nothing reached."""
    first, second = scales.first, scales.second

    def oriented(trial: FrozenTrial) -> tuple[float, float]:
        scores = trial.user_attrs["scores"]
        return first.oriented(scores[first.name]), second.oriented(scores[second.name])

    ranked = sorted(members, key=oriented)
    places = [scales.place(trial) for trial in ranked]
    points: list[tuple[float, float]] = []
    for x, y in places:
        if points:
            points.append((points[-1][0], y))
        points.append((x, y))
    if places:
        edge = scales.across.start if first.higher_is_better else scales.across.stop
        foot = scales.upward.start if second.higher_is_better else scales.upward.stop
        points = [(edge, places[0][1]), *points, (places[-1][0], foot)]
    return trace(points, "line front", "the front")


def _labels(trials: Sequence[FrozenTrial], chosen: dict[int, str], scales: _Scales) -> Markup:
    """Return the names of baselines and of the chosen beside their marks."""
    places = [scales.place(trial) for trial in trials]
    heights = spread([y for _, y in places], 13, _TOP + 6, _HEIGHT - _BOTTOM - 4)
    parts = []
    for trial, (x, y), height in zip(trials, places, heights, strict=True):
        label = chosen.get(trial.number) or str(trial.user_attrs[LABEL])
        left = x > _WIDTH * 0.62
        start = x - 9 if left else x + 9
        kind = "chosen" if trial.number in chosen else _baseline_kind(label)
        if abs(height - y) > 5:
            parts.append(line(x, y, start, height, "leader"))
        parts.append(
            text(
                start,
                height + 4,
                shortened(label, 150, 11),
                at="end" if left else "start",
                kind=f"label halo {kind}",
                size=11,
            )
        )
    return join(parts)
