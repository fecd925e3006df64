"""Parallel coordinates: how good candidates run through the genes, and where the others do."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup
from optuna.trial import FrozenTrial

from evomerge.archive.run import Run
from evomerge.report.figures.drawing import (
    Figure,
    Scale,
    drawing,
    line,
    number,
    shortened,
    spanning,
    text,
    tick_label,
    trace,
)
from evomerge.report.figures.importance import Importance, sampled, told
from evomerge.space.genes import GeneSpec
from evomerge.types import Measure

_MOST_AXES, _MOST_LINES = 7, 300
_WIDTH, _TOP, _BOTTOM, _SIDE = 1120.0, 52.0, 310.0, 84.0
_BEST = 0.1


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """One vertical axis: what it is called, where a trial crosses it, the marks along it."""

    label: str
    crossed: Callable[[FrozenTrial], float]
    marks: tuple[tuple[float, str], ...]


def parallel(run: Run, found: Sequence[Importance], chosen: Sequence[int]) -> Figure | None:
    """Return candidates as lines through their genes and scores; None of fewer than two."""
    trials = sampled(run)
    if len(trials) < 2:
        return None
    genes, objectives = _foremost(run.record.genome.genes, found), run.record.objectives
    axes = [*map(_gene_axis, genes), *(_score_axis(measure, trials) for measure in objectives)]
    step = (_WIDTH - 2 * _SIDE) / max(len(axes) - 1, 1)
    places = [_SIDE + k * step for k in range(len(axes))]
    first = objectives[0]
    ranked = sorted(trials, key=lambda t: (-first.oriented(told(t)[first.name]), t.number))
    kept = _kept(ranked, chosen)
    parts = [_line(trial, kind, axes, places, first) for trial, kind in reversed(kept)]
    parts += [_axis(axis, place, k, step) for k, (axis, place) in enumerate(zip(axes, places, strict=True))]
    legend = (("top", f"best tenth in {first.name}"), ("candidate", "others"))
    return Figure(
        title="Candidates through their genes",
        svg=drawing(_WIDTH, _BOTTOM + 14, parts, "Parallel coordinates of genes and objectives"),
        caption=f"A line is a candidate: {len(kept)} of {len(ranked)} are drawn, {_which(run, genes, found)} "
        "to the search scores (estimates where one was given up early). Better is up on objectives' axes.",
        legend=(*legend, ("chosen", "chosen")) if any(kind == "chosen" for _, kind in kept) else legend,
        wide=True,
    )


def _which(run: Run, genes: Sequence[GeneSpec], found: Sequence[Importance]) -> str:
    every = len(run.record.genome.genes)
    if len(genes) == every:
        return f"through all {every} genes"
    how = "most important" if found else "first"
    return f"through the {len(genes)} {how} of {every} genes"


def _foremost(genes: Sequence[GeneSpec], found: Sequence[Importance]) -> list[GeneSpec]:
    """Return the genes with the most importance in any objective, in the space's own order."""
    if len(genes) <= _MOST_AXES or not found:
        return list(genes[:_MOST_AXES])
    most = {gene.name: max(each.shares.get(gene.name, 0.0) for each in found) for gene in genes}
    kept = set(sorted(most, key=lambda name: -most[name])[:_MOST_AXES])
    return [gene for gene in genes if gene.name in kept]


def _kept(ranked: Sequence[FrozenTrial], chosen: Sequence[int]) -> list[tuple[FrozenTrial, str]]:
    """Return at most so many trials with what each is, those that should lie on top first."""
    step, top = -(-len(ranked) // _MOST_LINES), max(1, round(len(ranked) * _BEST))
    kinds = [
        (trial, "chosen" if trial.number in chosen else "top" if k < top else "candidate")
        for k, trial in enumerate(ranked)
        if k % step == 0 or trial.number in chosen
    ]
    return sorted(kinds, key=lambda each: ("chosen", "top", "candidate").index(each[1]))


def _gene_axis(gene: GeneSpec) -> _Axis:
    name = gene.name
    if gene.choices is not None:
        options = list(gene.choices)
        scale = Scale(low=-0.5, high=len(options) - 0.5, start=_BOTTOM, stop=_TOP)
        marks = tuple((scale(k), str(option)) for k, option in enumerate(options))
        return _Axis(label=name, crossed=lambda t: scale(options.index(t.params[name])), marks=marks)
    scale = Scale(low=float(gene.low), high=float(gene.high), start=_BOTTOM, stop=_TOP)
    ends = tuple((scale(value), tick_label(round(float(value), 4))) for value in (gene.low, gene.high))
    return _Axis(label=name, crossed=lambda t: scale(float(t.params[name])), marks=ends)


def _score_axis(measure: Measure, trials: Sequence[FrozenTrial]) -> _Axis:
    values = [told(trial)[measure.name] for trial in trials]
    start, stop = (_BOTTOM, _TOP) if measure.higher_is_better else (_TOP, _BOTTOM)
    scale = spanning(values, start, stop, room=0)
    marks = tuple((scale(value), number(value)) for value in (min(values), max(values)))
    return _Axis(
        label=f"{measure.name} {measure.arrow}", crossed=lambda t: scale(told(t)[measure.name]), marks=marks
    )


def _line(
    trial: FrozenTrial, kind: str, axes: Sequence[_Axis], places: Sequence[float], first: Measure
) -> Markup:
    points = [(place, axis.crossed(trial)) for place, axis in zip(places, axes, strict=True)]
    return trace(
        points, f"strand {kind}", f"trial {trial.number}: {first.name} {number(told(trial)[first.name])}"
    )


def _axis(axis: _Axis, x: float, place: int, step: float) -> Markup:
    """Return an axis at `x`; every second label stands higher, so that long ones have room."""
    parts = [
        line(x, _TOP, x, _BOTTOM, "axis"),
        text(x, 36 if place % 2 else 16, shortened(axis.label, 1.8 * step), at="middle", kind="label"),
    ]
    for y, label in axis.marks:
        parts += [
            line(x - 4, y, x, y, "axis"),
            text(x - 7, y + 4, shortened(label, 0.7 * step, 11), at="end", kind="halo", size=11),
        ]
    return Markup("").join(parts)
