"""Which items are searched on, selected on and reported on: split once, never mixed.

The items of a task are put in a random order that is stratified: any first part of it holds each stratum in
proportion, as systematic sampling does. It is cut into the splits, and each of them ordered likewise.
"""

from __future__ import annotations

from collections import Counter, defaultdict, deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias, get_args

from evomerge.errors import TaskError
from evomerge.evaluate.facts import TaskFacts
from evomerge.seeds import derive
from evomerge.types import Split

ItemSplit: TypeAlias = Mapping[Split, tuple[str, ...]]

SPLITS: tuple[Split, ...] = get_args(Split)

_SEARCH, _SEARCH_SHARE = 200, 0.4
_SELECT = 500
_REPORT = 500
_DRAWS = 2**63  # of `derive`


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """How many items of each task a split is to have (None: as many as suit), or which ones.

    `named` has the split of each item, by content hash, that someone chose; splits that are `chosen` so have
    no other items.
    """

    search: int | None = None
    select: int | None = None
    report: int | None = None
    named: Mapping[str, Split] = field(default_factory=dict)
    chosen: frozenset[Split] = frozenset()


def split_items(
    tasks: Sequence[TaskFacts], wanted: Wanted, *, seed: int, report_only: Collection[str] = ()
) -> dict[str, ItemSplit]:
    """Return disjoint search, select and report items (content hashes) of each task, by its name.

    The order depends on the items' contents and the seed, not on the data set's order. An item that several
    tasks have is in the same split of each, and items about the same text are in one split; what is left of
    such a text where a split is full is not used. By default 40% of a task's items, at most 200, are searched
    on; half of the rest, at most 500, are reported on; and at most 500 others selected on. Tasks that are
    `report_only` have report items alone.

    Raises `TaskError` if a task has too few items, or none of those named.
    """
    _check_named(tasks, wanted)
    places = dict(wanted.named)
    found: dict[str, ItemSplit] = {}
    # the smaller of two tasks that share items would have no choice once the larger has made its own
    for task in sorted(tasks, key=lambda each: (each.name in report_only, len(each.items))):
        alone = task.name in report_only
        counts = _report_count(task, wanted) if alone else _counts(task, wanted)
        found[task.name] = _Splitting(task, counts, places, seed=seed).split(_turns(wanted))
        _check(task, wanted, counts, found[task.name], alone=alone)
    return {task.name: found[task.name] for task in tasks}


class _Splitting:
    """The split of one task; `places` are the splits that items and texts have by now, here or elsewhere."""

    def __init__(
        self,
        task: TaskFacts,
        counts: Mapping[Split, int],
        places: dict[str, Split],
        *,
        seed: int,
    ) -> None:
        self._items = task.items
        self._counts = counts
        self._places = places
        self._seed = seed
        self._stratum = dict(zip(task.items, task.strata, strict=True))
        self._text = dict(zip(task.items, task.clusters or task.items, strict=True))
        self._taken: dict[Split, list[str]] = {split: [] for split in SPLITS}

    def split(self, turns: Sequence[Split]) -> ItemSplit:
        """Return the items of each split, and note their places; only those in `turns` take free ones."""
        groups = self._groups()
        for group in groups:  # first what has a place already
            for split in self._known(group):
                self._take(split, group, named=split not in turns)
        free = deque(group for group in groups if not self._known(group))
        for split in turns:
            while free and self._room(split) > 0:
                self._take(split, free.popleft())
        return {split: tuple(self._ordered(taken)) for split, taken in self._taken.items()}

    def _groups(self) -> list[list[str]]:
        """Return the items in the order in which they are given out, those about one text together."""
        of_text: dict[str, list[str]] = defaultdict(list)
        for item in sorted(self._items, key=self._draw):
            of_text[self._text[item]].append(item)
        by_first = {items[0]: items for items in of_text.values()}
        return [by_first[item] for item in self._ordered(by_first)]

    def _ordered(self, items: Iterable[str]) -> list[str]:
        """Return the items in a random order in which every first part has each stratum in proportion.

        The k-th (from 0) of the n items of a stratum, which are in random order, stands at (k + u) / n for
        a u drawn from [0, 1).
        """
        strata: dict[str, list[str]] = defaultdict(list)
        for item in items:
            strata[self._stratum[item]].append(item)
        at: dict[str, float] = {}
        for members in strata.values():
            for rank, item in enumerate(sorted(members, key=self._draw)):
                at[item] = (rank + derive(self._seed, "place", item) / _DRAWS) / len(members)
        return sorted(at, key=lambda item: (at[item], item))

    def _draw(self, item: str) -> int:
        return derive(self._seed, "items", item)

    def _known(self, group: Sequence[str]) -> tuple[Split, ...]:
        """Return the splits that a text, or items about it, have a place in."""
        known = {self._places.get(each) for each in (self._text[group[0]], *group)}
        return tuple(split for split in SPLITS if split in known)

    def _take(self, split: Split, group: Sequence[str], *, named: bool = False) -> None:
        """Put a text's items, or those `named`, into a split while there is room; others stay elsewhere."""
        own = self._places.setdefault(self._text[group[0]], split)
        usual = None if named else own  # of items without a place
        mine = [item for item in group if self._places.get(item, usual) == split][: self._room(split)]
        self._taken[split] += mine
        self._places |= dict.fromkeys(mine, split)

    def _room(self, split: Split) -> int:
        return self._counts[split] - len(self._taken[split])


def _turns(wanted: Wanted) -> list[Split]:
    """Return the order in which splits take items: first those whose number someone stated."""
    first: tuple[Split, ...] = ("search", "report", "select")
    stated = {split for split, asked in _asked(wanted) if asked is not None}
    return sorted(
        (split for split in first if split not in wanted.chosen), key=lambda each: each not in stated
    )


def _counts(task: TaskFacts, wanted: Wanted) -> dict[Split, int]:
    """Return how many items each split is to have, or may have where that was left open."""
    named = Counter(wanted.named[item] for item in task.items if item in wanted.named)
    search, select, report = (
        named[split] if split in wanted.chosen else asked for split, asked in _asked(wanted)
    )
    left = len(task.items) - sum(count or 0 for count in (search, select, report))
    if search is None:
        search = max(min(_SEARCH, int(len(task.items) * _SEARCH_SHARE), left - (report is None)), 1)
        left -= search
    if report is None:
        report = max(min(_REPORT, left // 2 if select is None and left > 1 else left), 1)
        left -= report
    if select is None:
        select = max(min(_SELECT, left), 0)
    return {"search": search, "select": select, "report": report}


def _report_count(task: TaskFacts, wanted: Wanted) -> dict[Split, int]:
    report = len(task.items) if "report" in wanted.chosen else wanted.report or _REPORT
    return {"search": 0, "select": 0, "report": report}


def _asked(wanted: Wanted) -> tuple[tuple[Split, int | None], ...]:
    return ("search", wanted.search), ("select", wanted.select), ("report", wanted.report)


def _check_named(tasks: Sequence[TaskFacts], wanted: Wanted) -> None:
    known = {item for task in tasks for item in task.items}
    if lost := next((item for item in wanted.named if item not in known), None):
        raise TaskError(f"item {lost}, named for `{wanted.named[lost]}`, is in none of the tasks")


def _check(
    task: TaskFacts, wanted: Wanted, counts: Mapping[Split, int], found: ItemSplit, *, alone: bool
) -> None:
    """Raise `TaskError` if a split has fewer items than were asked for, or none and cannot do without."""
    for split, asked in _asked(wanted):
        spared = split == "select" or (alone and split == "search")
        least = counts[split] if asked is not None else 0 if spared else 1
        if len(found[split]) >= least:
            continue
        if split in wanted.chosen:
            raise TaskError(f"task `{task.name}` has none of the items named for `{split}`")
        raise TaskError(_too_few(task, counts, alone=alone))


def _too_few(task: TaskFacts, counts: Mapping[Split, int], *, alone: bool) -> str:
    texts = f" about {len(set(task.clusters))} texts" if task.clusters else ""
    others = [f"{counts['select']} others to select on"] if counts["select"] else []
    parts = [f"{counts['search']} to search on", *others, f"{counts['report']} others to report on"]
    needs = f"{counts['report']} to report on" if alone else f"{', '.join(parts[:-1])} and {parts[-1]}"
    said = f"task `{task.name}` has {len(task.items)} items{texts}, too few for {needs}; lower `items`"
    if sum(counts.values()) > len(task.items):
        return said
    return f"{said} (what it shares with other tasks stays where it is there, and texts stay whole)"
