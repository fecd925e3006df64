"""What a task offers before anything is scored: its metrics, and of its items what tells them apart."""

from __future__ import annotations

import bisect
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from evomerge.types import Aggregate

_CATEGORIES = (
    "subject", "category", "topic", "type", "kind", "level", "domain", "subtask", "task", "difficulty",
)  # fmt: skip
"""What data sets call the column that sorts their items into a few kinds, the most telling first."""

_PASSAGES = ("passage", "context", "article", "story", "paragraph", "document")
"""What data sets call the text that several of their items are about."""

_PER_KIND = 5
"""A column with fewer items to a value than this does not sort them."""

_FEWEST_PASSAGES = 10
"""With fewer different texts than this, there are not enough to share out among the splits."""


@dataclass(frozen=True, kw_only=True)
class TaskFacts:
    """What a task offers: metrics with their direction and aggregate, filters, its items by content hash.

    `strata` has a label for each item; items of one label are much alike. `clusters` has an id for each
    item of the text that it shares with others, and is empty where items share none. A `deterministic`
    task asks a model for nothing that is drawn at random. `wording` is a digest of all that a model is asked
    and of how its answers are scored.
    """

    name: str
    metrics: Mapping[str, bool]
    aggregates: Mapping[str, Aggregate]
    filters: tuple[str, ...]
    items: tuple[str, ...]
    strata: tuple[str, ...]
    clusters: tuple[str, ...] = ()
    deterministic: bool = True
    wording: str = ""


def strata(docs: Sequence[Any], lengths: Sequence[int]) -> tuple[str, ...]:
    """Return a label for each item: its kind, where there is a column of that, and its length's quarter."""
    ordered = sorted(lengths)
    cuts = [ordered[len(ordered) * quarter // 4] for quarter in (1, 2, 3)]
    kinds = _column(docs, _CATEGORIES, _sorts) or [""] * len(docs)
    return tuple(
        f"{kind}/{bisect.bisect_right(cuts, length)}" for kind, length in zip(kinds, lengths, strict=True)
    )


def clusters(docs: Sequence[Any], items: Sequence[str]) -> tuple[str, ...]:
    """Return an id of the text that each item (a content hash) is about, or nothing where they share none."""
    texts = _column(docs, _PASSAGES, _repeats)
    if texts is None:
        return ()
    return tuple(
        hashlib.sha256(text.encode()).hexdigest() if text else item
        for text, item in zip(texts, items, strict=True)
    )


def _column(docs: Sequence[Any], names: Sequence[str], suits: Any) -> list[str] | None:
    """Return the values, as text, of the first column called by one of `names` that `suits`."""
    plain = [_columns(doc) for doc in docs]
    for name in names:
        values = [columns.get(name, "") for columns in plain]
        if suits(values):
            return values
    return None


def _columns(doc: Any) -> dict[str, str]:
    """Return a document's columns of interest as text, their names in lower case."""
    if not isinstance(doc, Mapping):
        return {}
    wanted = {str(name).lower(): value for name, value in doc.items()}
    return {
        name: value if isinstance(value, str) else json.dumps(value, default=str)
        for name in (*_CATEGORIES, *_PASSAGES)
        if (value := wanted.get(name)) is not None
    }


def _sorts(values: Sequence[str]) -> bool:
    return 2 <= len(set(values)) <= len(values) / _PER_KIND


def _repeats(values: Sequence[str]) -> bool:
    texts = [value for value in values if value]
    return _FEWEST_PASSAGES <= len(set(texts)) < len(texts)
