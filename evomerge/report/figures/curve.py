"""Best so far: how the best search score of an objective grew, against what the baselines scored."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.run import Run, feasible, is_scored
from evomerge.archive.trials import ESTIMATE, LABEL
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

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 540.0, 330.0, 52.0, 160.0, 32.0, 42.0
_MOST = 1200
"""Points of a kind; more make a file slow to open and show nothing new."""
_FAR = 4.0
"""Times the middle half's width, below which a score is at the edge of the plot."""


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A trial's place in the order of ending, and its score or estimate."""

    place: int
    trial: FrozenTrial
    score: float


def curves(run: Run) -> list[Figure]:
    """Return a figure per objective that any trial was scored in."""
    ended = sorted(
        (trial for trial in run.frozen_trials if trial.datetime_complete is not None),
        key=lambda trial: (trial.datetime_complete, trial.number),
    )
    return [found for measure in run.record.objectives if (found := _curve(ended, measure)) is not None]


def _curve(ended: Sequence[FrozenTrial], measure: Measure) -> Figure | None:
    scored, given_up = list(_scored(ended, measure)), list(_estimates(ended, measure))
    if not scored:
        return None
    across_scale = Scale(low=0, high=max(len(ended), 2), start=_LEFT, stop=_WIDTH - _RIGHT)
    shown = [*_thinned(given_up), *_thinned(scored)]
    limits = _limits([each.score for each in shown], measure)
    upward_scale = spanning(limits, _HEIGHT - _BOTTOM, _TOP)
    parts = [
        upward(upward_scale, _LEFT, _WIDTH - _RIGHT, axis(measure)),
        across(across_scale, _HEIGHT - _BOTTOM, _HEIGHT - _BOTTOM, "candidates finished"),
        _baselines(scored, limits, across_scale, upward_scale),
        *(_mark(each, measure, across_scale, upward_scale) for each in shown),
        _steps(scored, len(ended), measure, across_scale, upward_scale),
    ]
    legend = [("best", "best so far"), ("candidate", "scored on all search items")]
    if given_up:
        legend.append(("dropped", "given up early (its estimate)"))
    if any(not feasible(each.trial) for each in scored):
        legend.append(("infeasible", "misses a constraint"))
    return Figure(
        title=f"{measure.name}, best so far on search items",
        svg=drawing(_WIDTH, _HEIGHT, parts, f"Best {measure.name} so far by candidates finished"),
        caption="The best of many noisy scores flatters itself: read this as how the search went, not as "
        f"what the model is worth. Dashed lines are the baselines.{_notes(scored, given_up, shown, limits)}",
        legend=(*legend, ("baseline", "baselines")),
    )


def _limits(scores: Sequence[float], measure: Measure) -> tuple[float, float]:
    """Return the worst and the best score to draw; far outliers on the bad side would flatten all else."""
    ranked = sorted(map(measure.oriented, scores))
    lower, upper = ranked[len(ranked) // 4], ranked[3 * len(ranked) // 4]
    worst = max(ranked[0], lower - _FAR * max(upper - lower, 0.05 * (ranked[-1] - ranked[0])))
    return measure.oriented(worst), measure.oriented(ranked[-1])


def _notes(
    scored: Sequence[_Seen], given_up: Sequence[_Seen], shown: Sequence[_Seen], limits: tuple[float, float]
) -> str:
    """Return what is not drawn, or not where it belongs."""
    every, outside = len(scored) + len(given_up), sum(not _inside(each.score, limits) for each in shown)
    note = f" Of {every} points {len(shown)} are drawn." if len(shown) < every else ""
    if outside == 1:
        return f"{note} One point far off the scale is at its edge."
    return f"{note} {outside} points far off the scale are at its edge." if outside else note


def _inside(score: float, limits: tuple[float, float]) -> bool:
    return min(limits) <= score <= max(limits)


def _scored(ended: Sequence[FrozenTrial], measure: Measure) -> Iterator[_Seen]:
    for place, trial in enumerate(ended, 1):
        if is_scored(trial):
            yield _Seen(place=place, trial=trial, score=trial.user_attrs["scores"][measure.name])


def _estimates(ended: Sequence[FrozenTrial], measure: Measure) -> Iterator[_Seen]:
    for place, trial in enumerate(ended, 1):
        score = trial.user_attrs.get(ESTIMATE, {}).get(measure.name)
        if trial.state == TrialState.PRUNED and score is not None:
            yield _Seen(place=place, trial=trial, score=score)


def _thinned(seen: Sequence[_Seen]) -> Sequence[_Seen]:
    """Return every so-manieth where there are too many to draw."""
    return seen[:: -(-len(seen) // _MOST)] if len(seen) > _MOST else seen


def _mark(seen: _Seen, measure: Measure, across_scale: Scale, upward_scale: Scale) -> Markup:
    trial = seen.trial
    kind, shape, how = "candidate", "dot", ""
    if trial.state == TrialState.PRUNED:
        kind, shape, how = "dropped", "cross", " (estimate)"
    elif not feasible(trial):
        kind, how = "infeasible", " (misses a constraint)"
    told = f"trial {trial.number}: {measure.name} {number(seen.score)}{how}"
    place = across_scale(seen.place), _within(upward_scale, seen.score)
    return mark(*place, f"mark {kind}", told, shape=shape, size=2 if shape == "cross" else 2.6)


def _within(scale: Scale, value: float) -> float:
    """Return the place of a value, at the edge if it lies beyond."""
    return min(max(scale(value), scale.stop), scale.start)


def _steps(
    seen: Sequence[_Seen], end: int, measure: Measure, across_scale: Scale, upward_scale: Scale
) -> Markup:
    """Return the line of the best feasible score so far."""
    points: list[tuple[float, float]] = []
    best: float | None = None
    for each in seen:
        if feasible(each.trial) and (best is None or measure.oriented(each.score) > measure.oriented(best)):
            x = across_scale(each.place)
            if points:
                points.append((x, points[-1][1]))
            best = each.score
            points.append((x, _within(upward_scale, best)))
    if points:
        points.append((across_scale(end), points[-1][1]))
    return trace(points, "line best", f"best so far: {number(best)}" if best is not None else "")


def _baselines(
    seen: Sequence[_Seen], limits: tuple[float, float], across_scale: Scale, upward_scale: Scale
) -> Markup:
    """Return a dashed line for each baseline, labelled beside the plot without overlap."""
    found = [each for each in seen if LABEL in each.trial.user_attrs]
    heights = [_within(upward_scale, each.score) for each in found]
    right = across_scale.stop
    parts = []
    for each, height, place in zip(
        found, heights, spread(heights, 14, upward_scale.stop, upward_scale.start), strict=True
    ):
        label = str(each.trial.user_attrs[LABEL])
        value = number(each.score)
        kind = "parent" if label == "base" or label.startswith("parent ") else "baseline"
        if _inside(each.score, limits):
            parts += [
                line(across_scale.start, height, right, height, f"dashed {kind}"),
                line(right, height, right + 8, place, "leader"),
            ]
        parts.append(
            text(right + 11, place + 4, f"{shortened(label, 105, 11)} {value}", kind=f"label {kind}", size=11)
        )
    return join(parts)
