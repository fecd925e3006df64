"""Each model's score on one measure as a point with its interval: what differs, and what only seems to."""

from __future__ import annotations

from markupsafe import Markup

from evomerge.report.figures.drawing import (
    Figure,
    Scale,
    across,
    drawing,
    line,
    mark,
    number,
    shortened,
    spanning,
    text,
)
from evomerge.report.figures.measures import axis
from evomerge.report.standings import Cell, Standing, Standings
from evomerge.types import Measure, Split

_WIDTH, _LEFT, _RIGHT, _ROW, _TOP = 420.0, 124.0, 14.0, 24.0, 14.0
_SHAPES = {"parent": "square", "baseline": "square", "chosen": "diamond", "finalist": "dot"}


def forests(found: Standings) -> dict[str, Figure]:
    """Return a figure per measure with the scores of all models that have one, by the measure's name."""
    drawn = {measure.name: _forest(found, measure) for measure in found.measures}
    return {name: figure for name, figure in drawn.items() if figure is not None}


def _legend(split: Split) -> tuple[tuple[str, str], ...]:
    others = "finalists" if split == "report" else "candidates"
    return ("parent", "parents"), ("baseline", "other baselines"), ("chosen", "chosen"), ("finalist", others)


def _forest(found: Standings, measure: Measure) -> Figure | None:
    rows = [(row, row.cells[measure.name]) for row in found.rows if measure.name in row.cells]
    if not rows:
        return None
    bottom = _TOP + _ROW * len(rows)
    ends = [end for _, cell in rows for end in (cell.score, *(cell.interval or ()))]
    scale = spanning(ends, _LEFT, _WIDTH - _RIGHT)
    parts = [across(scale, bottom, _TOP, axis(measure), middle=_WIDTH / 2)]
    for k, (row, cell) in enumerate(rows):
        parts.append(_row(row, cell, scale, _TOP + _ROW * (k + 0.5)))
    items = max(cell.items for _, cell in rows)
    roles = {row.role for row, _ in rows}
    return Figure(
        title=f"{measure.name} on {items} {found.split} items",
        svg=drawing(_WIDTH, bottom + 40, parts, f"Scores in {measure.name} with 95 % intervals"),
        caption="Points are scores, bars 95 % intervals of each score by itself.",
        legend=tuple(each for each in _legend(found.split) if each[0] in roles),
    )


def _row(row: Standing, cell: Cell, scale: Scale, y: float) -> Markup:
    told = f"{row.title} (trial {row.trial}): {number(cell.score)}"
    parts = [text(_LEFT - 8, y + 4, shortened(row.title, _LEFT - 12), at="end", kind=f"label {row.role}")]
    if cell.interval is not None:
        low, high = cell.interval
        told += f" [{number(low)}, {number(high)}]"
        parts.append(line(scale(low), y, scale(high), y, f"bar {row.role}"))
    parts.append(mark(scale(cell.score), y, f"mark {row.role}", told, shape=_SHAPES[row.role], size=4))
    return Markup("").join(parts)
