"""Item scores on disk: one line per trial, split, task and metric, in the order the run record pins."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.archive.files import append_line, trim_torn_line
from evomerge.types import ItemScores, Scored, Split

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("trial", "split", "task", "metric", "filter", "item", "score", "weight")


class ItemStore:
    """The item scores of a run; `order` gives, by task and split, the items' content hashes."""

    def __init__(self, path: Path, order: Mapping[str, Mapping[str, list[str]]]) -> None:
        self._path = path
        self._order = order

    def repair(self) -> None:
        """Cut off a line that a crash left unfinished; only the writer may."""
        trim_torn_line(self._path)

    def add(self, trial: int, split: Split, scored: Scored) -> None:
        """Record a trial's item scores durably. A trial recorded twice counts as the later one."""
        lines = [self._line(trial, split, items) for items in scored.items]
        append_line(self._path, "\n".join(lines))

    def trials(self) -> set[int]:
        """Return the trials that have scores here."""
        return {int(entry["trial"]) for entry in self._entries()}

    def frame(self) -> pd.DataFrame:
        """Return one row per trial, split, task, metric, filter and item."""
        import pandas as pd

        latest = {_key(entry): entry for entry in self._entries()}
        rows = (row for entry in latest.values() for row in self._rows(entry))
        return pd.DataFrame.from_records(list(rows), columns=_COLUMNS)

    def _line(self, trial: int, split: Split, items: ItemScores) -> str:
        if list(items.items) != list(self._order[items.task][split]):
            raise ValueError(f"items of `{items.task}` are not those the run record pins")
        entry: dict[str, Any] = {
            "trial": trial,
            "split": split,
            "task": items.task,
            "metric": items.metric,
            "filter": items.filter,
            "scores": [_compact(score) for score in items.scores],
        }
        if items.weights is not None:
            entry["weights"] = [_compact(weight) for weight in items.weights]
        return json.dumps(entry, separators=(",", ":"))

    def _entries(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        with self._path.open(encoding="utf-8") as file:
            for line in file:
                if line.endswith("\n"):  # a last line without end is being written, or was torn
                    yield json.loads(line)

    def _rows(self, entry: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        head = tuple(entry[column] for column in _COLUMNS[:5])
        order = self._order[entry["task"]][entry["split"]]
        weights = entry.get("weights", [1.0] * len(order))
        for item, score, weight in zip(order, entry["scores"], weights, strict=True):
            yield (*head, item, math.nan if score is None else float(score), float(weight))


def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[column] for column in _COLUMNS[:5])


def _compact(value: float) -> float | int | None:
    """Return the shortest JSON number that reads back as `value`; None for NaN."""
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() else value
