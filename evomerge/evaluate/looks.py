"""The parts in which a candidate's search items are scored, and a candidate's scores put together of them.

A candidate is looked at after 25 items, say, then after 25 more. Items are always asked in these parts,
also by whoever asks for all of them: how they are batched, and so now and then a last digit, depends on it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from evomerge.comparison.items import aggregate, join
from evomerge.types import ItemScores, Measure, Scored


def look_ends(wanted: Sequence[int], counts: Sequence[int]) -> tuple[int, ...]:
    """Return after how many items to look: those `wanted` below the largest of `counts`, then that."""
    most = max(counts)
    return (*sorted({end for end in wanted if end < most}), most)


def parts(ends: Sequence[int], count: int) -> Iterator[tuple[int, int]]:
    """Yield where each look begins and ends among `count` items; a look may have none left to ask."""
    start = 0
    for end in ends:
        stop = min(end, count)
        yield start, stop
        start = stop


def extended(before: Scored | None, part: Scored, measures: Sequence[Measure]) -> Scored:
    """Return the scores on all items so far; those of a single part are lm-eval's own."""
    if before is None:
        return part
    named = {measure.name: measure for measure in measures}
    earlier = {_what(each): each for each in before.items}
    items = {**earlier, **{_what(each): _joined(earlier.get(_what(each)), each) for each in part.items}}
    fresh = {
        name: aggregate(named[name], items[_asked(named[name])]) if _asked(named[name]) in earlier else score
        for name, score in part.scores.items()
    }
    return replace(
        part,
        scores={**before.scores, **fresh},
        items=tuple(items.values()),
        merge_seconds=before.merge_seconds + part.merge_seconds,
        score_seconds=before.score_seconds + part.score_seconds,
    )


def scores_of(scored: Scored, measure: Measure) -> ItemScores:
    """Return the item scores behind a measure. Raises `KeyError` if it was not asked."""
    return {_what(each): each for each in scored.items}[_asked(measure)]


def first_items(items: ItemScores, count: int) -> ItemScores:
    """Return the scores on the first `count` items, or on all if there are fewer."""
    return replace(
        items,
        items=items.items[:count],
        scores=items.scores[:count],
        weights=items.weights[:count] if items.weights is not None else None,
        margins=items.margins[:count] if items.margins is not None else None,
    )


def _joined(before: ItemScores | None, part: ItemScores) -> ItemScores:
    return part if before is None else join((before, part))


def _what(items: ItemScores) -> tuple[str, str, str]:
    return items.task, items.metric, items.filter


def _asked(measure: Measure) -> tuple[str, str, str]:
    return measure.task, measure.metric, measure.filter
