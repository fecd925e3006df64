"""What a candidate would score on all items, from its scores on the first few of a seeded order.

Candidates of one search are siblings: what earlier ones scored on an item says much of what the next will. A model
with two parameters per candidate is fitted to the items seen and predicts the others, as tinyBenchmarks does
(https://arxiv.org/abs/2402.14992), but calibrated on candidates of the same run instead of public models and on one
dimension, so that a fit takes well under a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit

Vector = NDArray[np.float64]

_PRIOR_MEAN = np.array([0.0, 1.0])
_PRIOR_DEVIATION = np.array([1.0, 0.5])
"""Of a candidate's shift and slope against the ease of items: before any score it is the average sibling."""
_STEPS = 25
_SETTLED = 1e-6


@dataclass(frozen=True, kw_only=True)
class Ease:
    """How easy each item is, from the candidates that were scored on all `N` items so far."""

    totals: Vector  # (N,) sums of scores
    models: int = 0
    binary: bool = True  # whether every score was 0 or 1

    @classmethod
    def unknown(cls, items: int) -> Ease:
        """Return what is known of `items` items before any candidate."""
        return cls(totals=np.zeros(items))

    def add(self, scores: Sequence[float] | Vector) -> Ease:
        """Return the ease with one more candidate's `scores (N,)` in it.

        Raises:
            ValueError: of another number of items.
        """
        new = np.asarray(scores, dtype=np.float64)
        if new.shape != self.totals.shape:
            raise ValueError(f"ease is kept of {len(self.totals)} items, found scores of shape {new.shape}")
        return Ease(totals=self.totals + new, models=self.models + 1, binary=self.binary and _binary(new))

    @property
    def mean(self) -> Vector:
        """The mean score of each item `(N,)`; NaN before any candidate."""
        return self.totals / self.models if self.models else np.full_like(self.totals, math.nan)

    @property
    def logits(self) -> Vector:
        """The log-odds of passing each item `(N,)`, finite also where all or none passed it (scores of 0 and 1)."""
        return np.log((self.totals + 0.5) / (self.models - self.totals + 0.5))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A candidate's mean score over all `N` items, with the variance of that, and what it should score on each.

    `mean` is not held to the range of the scores: what is unbiased must be free to miss on both sides.
    """

    mean: float
    variance: float
    predicted: Vector  # (N,) of the items seen too


@dataclass(frozen=True, kw_only=True)
class _Fit:
    predicted: Vector  # (N,)
    noise: Vector  # (N,) variance of a score about its prediction
    gradient: NDArray[np.float64]  # (N, 2) of the predictions by shift and slope
    covariance: NDArray[np.float64]  # (2, 2) of shift and slope


def greg(prefix_scores: Sequence[float] | Vector, ease: Ease) -> Estimate:
    """Return the generalised regression estimate: the mean prediction, corrected by how it missed on the items seen.

    Unbiased however wrong the predictions are, as long as the first `n` of the `N` items are a random sample; with
    all items it is their mean. Where there is nothing to calibrate by (no candidate yet, or one item) it is the
    mean of the items seen. Särndal, Swensson and Wretman 1992, https://doi.org/10.1007/978-1-4612-4378-6, §6.4.

    Raises:
        ValueError: of no item, or more than `ease` knows.
    """
    seen = _seen(prefix_scores, ease)
    fit = _fit(seen, ease)
    if fit is None:
        return _plain(seen, len(ease.totals))
    missed = seen - fit.predicted[: len(seen)]
    return Estimate(
        mean=float(fit.predicted.mean() + missed.mean()),
        variance=_sampling_variance(missed, len(ease.totals), fitted=2),
        predicted=fit.predicted,
    )


def p_irt(prefix_scores: Sequence[float] | Vector, ease: Ease) -> Estimate:
    """Return the mean of the scores seen and, for the items not seen, of the predictions.

    Closer than `greg` where few items are seen, but biased where candidates differ in more than shift and slope:
    good for ranking proposals, not for dropping one. Its variance takes the model's word. Where there is nothing to
    calibrate by it is the mean of the items seen. Maia Polo et al. 2024, https://arxiv.org/abs/2402.14992, §4.

    Raises:
        ValueError: of no item, or more than `ease` knows.
    """
    seen = _seen(prefix_scores, ease)
    fit = _fit(seen, ease)
    count, items = len(seen), len(ease.totals)
    if fit is None:
        return _plain(seen, items)
    slope = fit.gradient[count:].sum(axis=0) / items
    return Estimate(
        mean=float((seen.sum() + fit.predicted[count:].sum()) / items),
        variance=float(slope @ fit.covariance @ slope + fit.noise[count:].sum() / items**2),
        predicted=fit.predicted,
    )


def soft(margins: ArrayLike, scale: float) -> Vector:
    """Return, in [0, 1], how clearly each multiple-choice item was won: ½ at a margin of 0.

    `scale` is the margin that counts as clear: the median size of the base's. For ranking within a search only: a
    margin can grow on items that were won already, so accuracy need not follow.

    Raises:
        ValueError: of a scale that is not positive.
    """
    if not scale > 0:
        raise ValueError(f"the scale of soft margins must be positive, found {scale}")
    return np.asarray(expit(np.asarray(margins, dtype=np.float64) / scale), dtype=np.float64)


def _seen(prefix_scores: Sequence[float] | Vector, ease: Ease) -> Vector:
    seen = np.asarray(prefix_scores, dtype=np.float64)
    if not 0 < len(seen) <= len(ease.totals):
        raise ValueError(f"an estimate takes 1 to {len(ease.totals)} scores, found {len(seen)}")
    return seen


def _plain(seen: Vector, items: int) -> Estimate:
    mean = float(seen.mean())
    return Estimate(
        mean=mean, variance=_sampling_variance(seen, items, fitted=1), predicted=np.full(items, mean)
    )


def _sampling_variance(values: Vector, items: int, *, fitted: int) -> float:
    """Return the variance of a mean of `values`, drawn without replacement from `items`.

    Values that are all equal count as deviating by 1/√n, as in paired differences: that they never differed in a
    small sample does not show that they cannot.
    """
    count = len(values)
    centred = values - values.mean()
    spread = float(centred @ centred) / max(count - fitted, 1)
    return (1 - count / items) * max(spread, 0.0 if np.ptp(values) > 0 else 1 / count) / count


def _fit(seen: Vector, ease: Ease) -> _Fit | None:
    if not ease.models or len(seen) < 2:
        return None
    return _logistic(seen, ease.logits) if ease.binary and _binary(seen) else _linear(seen, ease.mean)


def _logistic(seen: Vector, ease: Vector) -> _Fit:
    """Fit P = σ(shift + slope·ease), the most probable under the prior, by Newton's method.

    The prior keeps both finite where every item seen was passed, or none.
    """
    design = np.stack([np.ones_like(ease), ease], axis=1)  # (N, 2)
    sample = design[: len(seen)]
    precision = np.diag(_PRIOR_DEVIATION**-2)
    at = _PRIOR_MEAN
    for _ in range(_STEPS):
        passing = expit(sample @ at)
        curvature = precision + (sample * (passing * (1 - passing))[:, None]).T @ sample
        step = np.linalg.solve(curvature, sample.T @ (seen - passing) - precision @ (at - _PRIOR_MEAN))
        at = at + step
        if abs(step).max() < _SETTLED:
            break
    predicted = expit(design @ at)
    noise = predicted * (1 - predicted)
    return _Fit(
        predicted=predicted,
        noise=noise,
        gradient=design * noise[:, None],
        covariance=np.linalg.inv(curvature),
    )


def _linear(seen: Vector, ease: Vector) -> _Fit:
    """Fit score = ease + shift + change·(ease − its mean over the items seen).

    The change of slope is held towards 0 by ridge, as the logistic slope is towards 1. The shift is free, for the
    scores' unit is unknown.
    """
    count = len(seen)
    centred = ease - ease[:count].mean()
    above = seen - ease[:count]
    shift = above.mean()
    spread = float(above.var(ddof=1))
    held = spread / _PRIOR_DEVIATION[1] ** 2
    weight = float(centred[:count] @ centred[:count]) + held
    change = float(centred[:count] @ (above - shift)) / weight if weight > 0 else 0.0
    predicted = ease + shift + change * centred
    missed = seen - predicted[:count]
    noise = float(missed @ missed) / max(count - 2, 1)
    return _Fit(
        predicted=predicted,
        noise=np.full_like(ease, noise),
        gradient=np.stack([np.ones_like(ease), centred], axis=1),
        covariance=noise * np.diag([1 / count, 1 / weight if weight > 0 else 0.0]),
    )


def _binary(scores: Vector) -> bool:
    return bool(np.all((scores == 0) | (scores == 1)))
