"""Records of searches that race, and scores on the first of their items; no model is built."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from evomerge.archive.record import RunRecord
from evomerge.comparison.items import aggregate
from evomerge.space import parse_space
from evomerge.types import Aggregate, ItemScores, Measure, Scored
from tests.controller.handmade import SPACE, record_of

Vector = NDArray[np.float64]

ITEMS = 400
ENDS = (25, 50, 100, 200, 350, ITEMS)
NO_START = "racing: {cold_start: 0, margin: 0}\n"


def measure(name: str = "t", *, up: bool = True, kind: Aggregate = "mean") -> Measure:
    return Measure(name=name, task=name, metric="m", filter="none", higher_is_better=up, aggregate=kind)


def record(
    *objectives: Measure,
    rules: str = NO_START,
    constraint: Measure | None = None,
    bounds: str = "",
    counts: Sequence[int] = (),
) -> RunRecord:
    """Return a record whose tasks have so many search items, by default 400 each."""
    measures = [*objectives, *([constraint] if constraint else [])]
    made = record_of(measures, {"search": ITEMS, "select": 0, "report": 10})
    text = SPACE.replace("OBJECTIVES", ", ".join(f"{{task: {each.name}}}" for each in objectives))
    if constraint:
        text += f"constraints: [{{task: {constraint.name}, {bounds}}}]\n"
    sizes = dict(zip([each.task for each in measures], counts or [ITEMS] * len(measures), strict=True))
    return replace(
        made,
        space=parse_space(text + rules, "small.yaml"),
        objectives=tuple(objectives),
        constraints=(constraint,) if constraint else (),
        items={task: {**dict(made.items[task]), "search": _hashes(task, n)} for task, n in sizes.items()},
    )


def _hashes(task: str, count: int) -> list[str]:
    return [f"{task}-{i}" for i in range(count)]


def scored_on_first(record: RunRecord, columns: Sequence[Vector], start: int = 0) -> Scored:
    """Return the result of these scores of each measure's items from `start` on, as far as there are any."""
    asked = [
        (each, _items(record, each, column, start))
        for each, column in zip(record.measures, columns, strict=True)
        if len(column) and start < len(record.items[each.task]["search"])
    ]
    return Scored(
        scores={each.name: 0.5 if each.aggregate == "other" else aggregate(each, of) for each, of in asked},
        items=tuple(items for _, items in asked),
        merge_seconds=0.0,
        score_seconds=0.0,
        device="none",
    )


def _items(record: RunRecord, measure: Measure, column: Vector, start: int) -> ItemScores:
    hashes = record.items[measure.task]["search"][start : start + len(column)]
    weighted = measure.aggregate in ("weighted_perplexity", "bits_per_byte")
    return ItemScores(
        task=measure.task,
        metric=measure.metric,
        filter=measure.filter,
        items=tuple(hashes),
        scores=tuple(column[: len(hashes)].tolist()),
        weights=tuple(1.0 + (start + i) % 5 for i in range(len(hashes))) if weighted else None,
    )
