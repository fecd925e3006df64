"""Which items are searched on and which are reported on: split once, never mixed."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from evomerge.errors import TaskError
from evomerge.seeds import derive
from evomerge.types import Split

ItemSplit: TypeAlias = Mapping[Split, tuple[str, ...]]

_DEFAULT_SEARCH = 200
_DEFAULT_REPORT = 500


def split_items(
    task: str, items: Sequence[str], *, search: int | None, report: int | None, seed: int
) -> ItemSplit:
    """Return disjoint search and report items (content hashes), each in a seeded random order.

    The order depends on the items' contents and the seed, not on the data set's order, and a smaller
    number takes a prefix of a larger one. By default half the items, at most 200, are searched on and
    at most 500 others reported on. Raises `TaskError` if the task has too few items.
    """
    if search is None:
        search = min(_DEFAULT_SEARCH, len(items) // 2)
    if report is None:
        report = min(_DEFAULT_REPORT, len(items) - search)
    if search < 1 or report < 1 or search + report > len(items):
        raise TaskError(
            f"task `{task}` has {len(items)} items, too few for {search} to search on and "
            f"{max(report, 1)} others to report on; lower `items`"
        )
    order = sorted(set(items))
    random.Random(derive(seed, "items", task)).shuffle(order)
    return {"search": tuple(order[:search]), "report": tuple(order[search : search + report])}
