"""What a candidate would score on all items, from its scores on the first few of a seeded order.

Candidates of one search are siblings: what earlier ones scored on an item says much of what the next will. A
model with two parameters per candidate is fitted to the items seen and predicts the others, as tinyBenchmarks
does (https://arxiv.org/abs/2402.14992), but calibrated on candidates of the same run instead of public models
and on one dimension, so that a fit takes well under a millisecond.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from evomerge.comparison.ease import Ease, Fit, Vector, checked, fit_to, sigmoid, spread


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A candidate's mean score over all `N` items, the variance of that, and what it should score on each.

    `mean` is not held to the range of the scores: what is unbiased must be free to miss on both sides.
    """

    mean: float
    variance: float
    predicted: Vector  # (N,) of the items seen too


def greg(prefix_scores: Sequence[float] | Vector, ease: Ease) -> Estimate:
    """Return the mean prediction, corrected by how it missed on the items seen: generalised regression.

    Unbiased however wrong the predictions are, as long as the first `n` of the `N` items are a random sample;
    with all items it is their mean. Where there is nothing to calibrate by (no candidate yet, or one item) it
    is the mean of the items seen. Särndal, Swensson and Wretman 1992,
    https://doi.org/10.1007/978-1-4612-4378-6, whose correction is by the misses of the fit on the items it
    was fitted to. Each item is here predicted without itself, which takes out the bias that a wrong model has
    at 25 items and makes up for misses that look small because they were fitted. A variance below what the
    model itself expects is luck, and is not believed.

    Raises:
        ValueError: of no item, or more than `ease` knows.
    """
    seen = checked(prefix_scores, ease)
    fit = fit_to(seen, ease)
    count, items = len(seen), len(ease.totals)
    if fit is None:
        return _plain(seen, items)
    told = _told(seen, fit)
    unseen = 1 - count / items
    moved = fit.design[:count] @ fit.inverse  # (n, 2) of shift and slope, by a unit missed on each item
    missed = (seen - fit.predicted[:count]) / (1 - (moved * fit.gradient[:count]).sum(axis=1))
    slope = fit.gradient[count:].sum(axis=0) / max(items - count, 1)
    return Estimate(
        mean=told + unseen * float((missed * (1 - moved @ slope)).mean()),
        variance=unseen * max(float(spread(missed)), float(fit.noise.mean())) / count,
        predicted=fit.predicted,
    )


def p_irt(prefix_scores: Sequence[float] | Vector, ease: Ease) -> Estimate:
    """Return the mean of the scores seen and, for the items not seen, of the predictions.

    Closer than `greg` where few items are seen, but biased where candidates differ in more than shift and
    slope: good for ranking proposals, not for dropping one. Its variance takes the model's word. Where there
    is nothing to calibrate by it is the mean of the items seen. Maia Polo et al. 2024,
    https://arxiv.org/abs/2402.14992.

    Raises:
        ValueError: of no item, or more than `ease` knows.
    """
    seen = checked(prefix_scores, ease)
    fit = fit_to(seen, ease)
    count, items = len(seen), len(ease.totals)
    if fit is None:
        return _plain(seen, items)
    slope = fit.gradient[count:].sum(axis=0) / items
    return Estimate(
        mean=_told(seen, fit),
        variance=float(slope @ fit.covariance @ slope + fit.noise[count:].sum() / items**2),
        predicted=fit.predicted,
    )


def soft(margins: ArrayLike, scale: float) -> Vector:
    """Return, in [0, 1], how clearly each multiple-choice item was won: ½ at a margin of 0.

    `scale` is the margin that counts as clear: the median size of the base's. For ranking within a search
    only: a margin can grow on items that were won already, so accuracy need not follow.

    Raises:
        ValueError: of a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(f"the scale of soft margins must be positive, found {scale}")
    return sigmoid(np.asarray(margins, dtype=np.float64) / scale)


def _plain(seen: Vector, items: int) -> Estimate:
    count, mean = len(seen), float(seen.mean())
    return Estimate(
        mean=mean, variance=(1 - count / items) * float(spread(seen)) / count, predicted=np.full(items, mean)
    )


def _told(seen: Vector, fit: Fit) -> float:
    return float(seen.sum() + fit.predicted[len(seen) :].sum()) / len(fit.predicted)
