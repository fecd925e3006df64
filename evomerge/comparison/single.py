"""The standard error of one model's score, from what each of its items adds to it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping

import numpy as np

from evomerge.types import ItemScores, Measure


def standard_error(
    measure: Measure, scores: ItemScores, *, clusters: Mapping[str, str] | None = None
) -> float | None:
    """Return the standard error of a measure on some items, in its own units.

    With R = Σsᵢ / Σwᵢ it is that of a ratio (Cochran 1977, *Sampling Techniques*, §2.11), carried to e⁻ᴿ or
    R/ln 2 by their slopes; items of one of the `clusters` (by content hash) count together. None where the
    metric is no mean or perplexity of item scores, or there are fewer than two items or clusters.
    """
    if measure.aggregate == "other" or not all(map(math.isfinite, scores.scores)):
        return None
    values = np.asarray(scores.scores, dtype=np.float64)
    plain = measure.aggregate == "mean" or scores.weights is None
    weights = np.ones(len(values)) if plain else np.asarray(scores.weights, dtype=np.float64)
    rate = float(values.sum() / weights.sum())
    missed = (values - rate * weights) / weights.sum()  # (n,), sums to nothing
    together: dict[str, float] = defaultdict(float)
    for item, each in zip(scores.items, missed, strict=True):
        together[(clusters or {}).get(item, item)] += float(each)
    count = len(together)
    if count < 2:
        return None
    error = math.sqrt(count / (count - 1) * math.fsum(each**2 for each in together.values()))
    return error * _slope(measure, rate)


def _slope(measure: Measure, rate: float) -> float:
    """Return by how much the measure changes with R."""
    if measure.aggregate == "bits_per_byte":
        return 1 / math.log(2)
    return 1.0 if measure.aggregate == "mean" else math.exp(-rate)
