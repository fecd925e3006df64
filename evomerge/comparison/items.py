"""Item scores as numbers to compare: what lm-eval makes of them, and what each item adds to it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from evomerge.comparison.paired import Difference, compare
from evomerge.types import ItemScores, Measure

if TYPE_CHECKING:
    from numpy.typing import NDArray


def aggregate(measure: Measure, items: ItemScores) -> float:
    """Return the measure's value on some items, as lm-eval computes it (not oriented).

    With R = Σsᵢ / Σwᵢ: R where scores are averaged, e⁻ᴿ for perplexities (infinite where that overflows),
    −R/ln 2 for bits. Sums are exact, so the items' order does not matter. Raises `ValueError` where there
    are no items, or the metric is none of these.
    """
    rate = _rate(measure, items)
    match measure.aggregate:
        case "mean":
            return rate
        case "bits_per_byte":
            return -rate / math.log(2)
        case "perplexity" | "weighted_perplexity":
            try:
                return math.exp(-rate)
            except OverflowError:
                return math.inf
    raise ValueError(f"`{measure.metric}` of `{measure.task}` is no mean or perplexity of item scores")


def contributions(measure: Measure, scores: ItemScores) -> NDArray[np.float64] | None:
    """Return one number per item `(n,)`, higher being better, whose mean moves with the measure.

    Scores that are averaged count as they are, turned so that higher is better; of perplexities and bits it
    is the log-likelihood over the mean weight, of whose mean the measure is a monotone function. None where
    the measure is no such function, or an item's score is not a finite number.
    """
    if measure.aggregate == "other" or not all(map(math.isfinite, scores.scores)):
        return None
    values = np.asarray(scores.scores, dtype=np.float64)
    if measure.aggregate == "mean":
        return values if measure.higher_is_better else -values
    turned = -values if measure.higher_is_better else values
    return turned / (math.fsum(_weights(measure, scores)) / len(scores.items))


def compare_items(
    measure: Measure, ours: ItemScores, theirs: ItemScores, *, clusters: Mapping[str, str] | None = None
) -> Difference | None:
    """Return how much better (positive) ours is on the items both have, in the measure's own units.

    Items are joined by content hash; either side may have more of them, in any order. `clusters` names the
    cluster of an item's hash; an item it lacks stands alone. A perplexity is a function g(R) of the rate
    R = Σsᵢ/Σwᵢ; its difference is exact, and for the deviation item i counts g(R) + g′(R)·(sᵢ − R·wᵢ)/w̄ (the
    delta method, https://en.wikipedia.org/wiki/Delta_method). None where there is no interval: fewer than
    two items or clusters, scores that are not finite, any other aggregate.
    """
    if measure.aggregate == "other":
        return None
    where = {item: k for k, item in enumerate(theirs.items)}
    pairs = [(k, where[item]) for k, item in enumerate(ours.items) if item in where]
    if len(pairs) < 2:
        return None
    ours, theirs = _at(ours, [k for k, _ in pairs]), _at(theirs, [k for _, k in pairs])
    found = compare(
        _values(measure, ours),
        _values(measure, theirs),
        clusters=None if clusters is None else [clusters.get(item, item) for item in ours.items],
    )
    if found is None or measure.aggregate == "mean":
        return found
    return replace(found, mean=measure.oriented(aggregate(measure, ours) - aggregate(measure, theirs)))


def join(parts: Sequence[ItemScores]) -> ItemScores:
    """Return the scores of several looks at one model as one, in their order.

    Margins are kept where all parts have them. Raises `ValueError` if the parts share an item or are not of
    one metric.
    """
    first = parts[0]
    items = tuple(item for part in parts for item in part.items)
    if len(kinds := {(part.task, part.metric, part.filter) for part in parts}) > 1:
        raise ValueError(f"scores to join must be of one metric, found {sorted(kinds)}")
    if len(set(items)) < len(items):
        raise ValueError(f"scores of `{first.task}` to join share {len(items) - len(set(items))} items")
    weighted = any(part.weights is not None for part in parts)
    margins = [part.margins for part in parts if part.margins is not None]
    return replace(
        first,
        items=items,
        scores=tuple(score for part in parts for score in part.scores),
        weights=tuple(w for part in parts for w in part.weights or _ones(part)) if weighted else None,
        margins=tuple(m for found in margins for m in found) if len(margins) == len(parts) else None,
    )


def _rate(measure: Measure, items: ItemScores) -> float:
    """Return R = Σsᵢ / Σwᵢ."""
    if not items.items:
        raise ValueError(f"`{measure.metric}` of `{measure.task}` needs at least one item, found none")
    return math.fsum(items.scores) / math.fsum(_weights(measure, items))


def _weights(measure: Measure, items: ItemScores) -> Sequence[float]:
    weighted = measure.aggregate in ("weighted_perplexity", "bits_per_byte")
    return items.weights if weighted and items.weights is not None else _ones(items)


def _ones(items: ItemScores) -> tuple[float, ...]:
    return (1.0,) * len(items.items)


def _values(measure: Measure, items: ItemScores) -> list[float]:
    """Return what each item counts, oriented: its score, or its pseudo-value g(R) + g′(R)·(sᵢ − R·wᵢ)/w̄."""
    if measure.aggregate == "mean":
        return [measure.oriented(score) for score in items.scores]
    rate, value = _rate(measure, items), aggregate(measure, items)
    weights = _weights(measure, items)
    slope = -1 / math.log(2) if measure.aggregate == "bits_per_byte" else -value
    per_item = slope * len(weights) / math.fsum(weights)
    return [
        measure.oriented(value + per_item * (score - rate * weight))
        for score, weight in zip(items.scores, weights, strict=True)
    ]


def _at(scores: ItemScores, positions: Sequence[int]) -> ItemScores:
    """Return the scores of the items at `positions`; margins are left out."""
    return replace(
        scores,
        items=tuple(scores.items[k] for k in positions),
        scores=tuple(scores.scores[k] for k in positions),
        weights=None if scores.weights is None else tuple(scores.weights[k] for k in positions),
        margins=None,
    )
