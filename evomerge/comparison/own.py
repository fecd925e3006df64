"""How sure one model's own score is, as a value among all items like those it was asked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from evomerge.comparison.items import aggregate, compare_items
from evomerge.types import ItemScores, Measure

_OUTSIDE = 0.025  # of a 95 % interval, on either side


def own_interval(
    measure: Measure, items: ItemScores, *, clusters: Mapping[str, str] | None = None
) -> tuple[float, float] | None:
    """Return the 95 % interval of a model's own score, in the measure's units; None where there is none.

    Of right and wrong answers it is Wilson's (https://doi.org/10.1080/01621459.1927.10502953), which stays
    between 0 and 1; else the score ± t·s/√n, over clusters where items share a text. It says how the score
    would vary with the items; two models on the same items are compared by their paired difference.
    """
    from scipy.special import stdtrit

    nothing = replace(items, scores=(0.0,) * len(items.scores))  # its values are all equal, so s is ours
    found = compare_items(measure, items, nothing, clusters=clusters)
    if found is None:
        return None
    score, count = aggregate(measure, items), len(items.items)
    if found.wins is not None and set(items.scores) <= {0.0, 1.0}:
        return _wilson(score, count, float(stdtrit(math.inf, 1 - _OUTSIDE)))
    half = float(stdtrit(found.df, 1 - _OUTSIDE)) * found.standard_error
    return score - half, score + half


def _wilson(share: float, count: int, z: float) -> tuple[float, float]:
    """Return (p + z²/2n ± z·√(p(1 − p)/n + z²/4n²)) / (1 + z²/n)."""
    centre = share + z * z / (2 * count)
    half = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    whole = 1 + z * z / count
    return max(0.0, (centre - half) / whole), min(1.0, (centre + half) / whole)
