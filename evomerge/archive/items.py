"""Item scores on disk: one line per trial, split, task and metric, in the order the run record pins.

A trial that was given up early has scores of the first items only.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evomerge.archive.files import append_line, parse_line, trim_torn_line
from evomerge.types import ItemScores, Scored, Split

if TYPE_CHECKING:
    import pandas as pd

_COLUMNS = ("trial", "split", "task", "metric", "filter", "item", "score", "weight", "margin")
_HEAD = re.compile(rb'\{"trial":(\d+),')
_DIGITS = 4
"""Of a margin: more than its size says of an item, and half the bytes of a float."""


class ItemStore:
    """The item scores of a run; `order` gives, by task and split, the items' content hashes."""

    def __init__(self, path: Path, order: Mapping[str, Mapping[str, list[str]]]) -> None:
        self._path = path
        self._order = order
        self._lines: dict[int, list[tuple[int, int]]] = {}  # of each trial: where they begin, and their sizes
        self._end = 0  # of the lines that are known

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

    def of(self, trial: int, split: Split) -> tuple[ItemScores, ...]:
        """Return the item scores of one trial on a split."""
        own = {_key(entry): entry for entry in self._entries_of(trial)}
        return tuple(self._scores(entry) for entry in own.values() if entry["split"] == split)

    def read(self, split: Split) -> dict[int, tuple[ItemScores, ...]]:
        """Return the item scores of each trial on a split, in the order in which they were last recorded."""
        found: dict[int, tuple[ItemScores, ...]] = {}
        for entry in self._latest():
            if entry["split"] == split:
                found[entry["trial"]] = (*found.get(entry["trial"], ()), self._scores(entry))
        return found

    def frame(self) -> pd.DataFrame:
        """Return one row per trial, split, task, metric, filter and item."""
        import pandas as pd

        rows = (row for entry in self._latest() for row in self._rows(entry))
        return pd.DataFrame.from_records(list(rows), columns=_COLUMNS)

    def _line(self, trial: int, split: Split, items: ItemScores) -> str:
        if list(items.items) != list(self._order[items.task][split][: len(items.items)]):
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
        if items.margins is not None:
            entry["margins"] = [_compact(float(f"{margin:.{_DIGITS}g}")) for margin in items.margins]
        return json.dumps(entry, separators=(",", ":"))

    def _entries(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        with self._path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.endswith("\n"):  # one without end was torn
                    yield self._parsed(line)

    def _entries_of(self, trial: int) -> Iterator[dict[str, Any]]:
        """Yield the lines of one trial; others are read once, by whoever writes them."""
        if not self._path.exists():
            return
        with self._path.open("rb") as file:
            file.seek(self._end)
            for line in file:
                if not line.endswith(b"\n"):
                    break
                if (head := _HEAD.match(line)) is not None:
                    self._lines.setdefault(int(head[1]), []).append((self._end, len(line)))
                self._end += len(line)
            for start, size in self._lines.get(trial, ()):
                file.seek(start)
                yield self._parsed(file.read(size).decode("utf-8", errors="replace"))

    def _parsed(self, line: str) -> dict[str, Any]:
        return parse_line(line, self._path, "trial", "split", "task", "metric", "filter", "scores")

    def _latest(self) -> list[dict[str, Any]]:
        found: dict[tuple[Any, ...], dict[str, Any]] = {}
        for entry in self._entries():
            found.pop(key := _key(entry), None)  # it goes to the end
            found[key] = entry
        return list(found.values())

    def _scores(self, entry: dict[str, Any]) -> ItemScores:
        scores = tuple(_number(score) for score in entry["scores"])
        weights, margins = (entry.get(kind) for kind in ("weights", "margins"))
        return ItemScores(
            task=entry["task"],
            metric=entry["metric"],
            filter=entry["filter"],
            items=tuple(self._order[entry["task"]][entry["split"]][: len(scores)]),
            scores=scores,
            weights=tuple(map(float, weights)) if weights else None,
            margins=tuple(map(_number, margins)) if margins else None,
        )

    def _rows(self, entry: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
        head = tuple(entry[column] for column in _COLUMNS[:5])
        found = self._scores(entry)
        count = len(found.items)
        weights, margins = found.weights or (1.0,) * count, found.margins or (math.nan,) * count
        for row in zip(found.items, found.scores, weights, margins, strict=True):
            yield (*head, *row)


def _key(entry: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(entry[column] for column in _COLUMNS[:5])


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _compact(value: float) -> float | int | None:
    """Return the shortest JSON number that reads back as `value`; None for NaN."""
    if math.isnan(value):
        return None
    return int(value) if value.is_integer() else value
