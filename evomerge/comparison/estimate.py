"""What a candidate would score on all items, from its scores on the first few of a seeded order.

Candidates of one search are siblings: what earlier ones scored on an item says much of what the next will. A
model with two parameters per candidate is fitted to the items seen and predicts the others, as tinyBenchmarks
does (https://arxiv.org/abs/2402.14992), but calibrated on candidates of the same run instead of public models
and on one dimension, so that a fit takes well under a millisecond.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from evomerge.comparison.paired import Difference

Vector = NDArray[np.float64]  # (n,)
Matrix = NDArray[np.float64]  # (m, n)

_PRIOR_MEAN = np.array([0.0, 1.0])
_PRIOR_DEVIATION = np.array([1.0, 0.5])
"""Of a candidate's shift and slope against the ease of items: before any score it is the average sibling."""
_STEPS = 25
_SETTLED = 1e-5


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
        """The log-odds of passing each item `(N,)`, finite also where all or none did (scores 0 and 1)."""
        return np.log((self.totals + 0.5) / (self.models - self.totals + 0.5))


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A candidate's mean score over all `N` items, the variance of that, and what it should score on each.

    `mean` is not held to the range of the scores: what is unbiased must be free to miss on both sides.
    """

    mean: float
    variance: float
    predicted: Vector  # (N,) of the items seen too


@dataclass(frozen=True, kw_only=True)
class _Fit:
    predicted: Vector  # (N,)
    noise: Vector  # (N,) variance of a score about its prediction
    design: Matrix  # (N, 2) what shift and slope are multiplied by
    gradient: Matrix  # (N, 2) of the predictions by shift and slope
    inverse: Matrix  # (2, 2) of the curvature
    covariance: Matrix  # (2, 2) of shift and slope


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
    seen = _seen(prefix_scores, ease)
    fit = _fit(seen, ease)
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
        variance=unseen * max(_spread(missed), float(fit.noise.mean())) / count,
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
    seen = _seen(prefix_scores, ease)
    fit = _fit(seen, ease)
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
    return _sigmoid(np.asarray(margins, dtype=np.float64) / scale)


def _seen(prefix_scores: Sequence[float] | Vector, ease: Ease) -> Vector:
    seen = np.asarray(prefix_scores, dtype=np.float64)
    if not 0 < len(seen) <= len(ease.totals):
        raise ValueError(f"an estimate takes 1 to {len(ease.totals)} scores, found {len(seen)}")
    return seen


def _plain(seen: Vector, items: int) -> Estimate:
    count, mean = len(seen), float(seen.mean())
    return Estimate(
        mean=mean, variance=(1 - count / items) * _spread(seen) / count, predicted=np.full(items, mean)
    )


def _told(seen: Vector, fit: _Fit) -> float:
    return float(seen.sum() + fit.predicted[len(seen) :].sum()) / len(fit.predicted)


def _spread(values: Vector) -> float:
    """Return the sample variance of `values`, or 1/n where they are all equal, as in paired differences.

    That a small sample never differed does not show that its population cannot.
    """
    return float(values.var(ddof=1)) if np.ptp(values) > 0 else 1 / len(values)


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

    def log_posterior(at: Vector) -> float:
        logits, off = sample @ at, (at - _PRIOR_MEAN) / _PRIOR_DEVIATION
        return float(seen @ logits - np.logaddexp(0.0, logits).sum() - off @ off / 2)

    at, value = _PRIOR_MEAN, log_posterior(_PRIOR_MEAN)
    for _ in range(_STEPS):
        step, curvature = _newton(seen, sample, at)
        if abs(step).max() < _SETTLED:
            break
        while (reached := log_posterior(at + step)) < value - _SETTLED:  # overshot: flat where P is 0 or 1
            step = step / 2
        at, value = at + step, reached
    predicted = _sigmoid(design @ at)
    noise = predicted * (1 - predicted)
    inverse = np.asarray(np.linalg.inv(curvature), dtype=np.float64)
    return _Fit(
        predicted=predicted,
        noise=noise,
        design=design,
        gradient=design * noise[:, None],
        inverse=inverse,
        covariance=inverse,
    )


def _newton(seen: Vector, sample: Matrix, at: Vector) -> tuple[Vector, Matrix]:
    """Return Newton's step from `at` and the curvature there, of minus the log-posterior."""
    passing = _sigmoid(sample @ at)
    precision = _PRIOR_DEVIATION**-2
    curvature = (sample * (passing * (1 - passing))[:, None]).T @ sample + np.diag(precision)
    slope = sample.T @ (seen - passing) - precision * (at - _PRIOR_MEAN)
    return np.linalg.solve(curvature, slope), curvature


def _linear(seen: Vector, ease: Vector) -> _Fit:
    """Fit score = ease + shift + change·(ease − its mean over the items seen).

    The change of slope is held towards 0 by ridge, as the logistic slope is towards 1. The shift is free, for
    the scores' unit is unknown.
    """
    count = len(seen)
    centred = ease - ease[:count].mean()
    above = seen - ease[:count]
    spread = float(above.var(ddof=1))
    # Scores that are all as far above the ease are no reason to change the slope.
    held = spread / _PRIOR_DEVIATION[1] ** 2 if spread > 0 else math.inf
    inverse = np.diag([1 / count, 1 / (float(centred[:count] @ centred[:count]) + held)])
    design = np.stack([np.ones_like(ease), centred], axis=1)
    predicted = ease + design @ (inverse @ (design[:count].T @ above))
    missed = seen - predicted[:count]
    noise = float(missed @ missed) / max(count - 2, 1)
    return _Fit(
        predicted=predicted,
        noise=np.full_like(ease, noise),
        design=design,
        gradient=design,
        inverse=inverse,
        covariance=noise * inverse,
    )


def _sigmoid(logits: Vector) -> Vector:
    return (1 + np.tanh(logits / 2)) / 2  # overflows nowhere


def _binary(scores: Vector) -> bool:
    return bool(np.all((scores == 0) | (scores == 1)))


def lead(
    prefix_scores: Sequence[float] | Vector, rival_scores: Sequence[float] | Vector, ease: Ease
) -> Difference | None:
    """Return by how much a candidate will be better (positive) than its rival on all `N` items.

    The rival has all its scores, and items that it passes against the odds its siblings often pass, too:
    where both miss their predictions together, as far as they do, that is taken out (a regression estimator
    with the rival's misses, known for all items, as its second auxiliary). As all `N` items are asked about
    and no others, the variance has the factor 1 − n/N. None where there is nothing to tell the two apart by
    yet.
    """
    rival = np.asarray(rival_scores, dtype=np.float64)
    seen = _seen(prefix_scores, ease)
    count, items = len(seen), len(rival)
    if count < 4 or np.array_equal(seen, rival[:count]):
        return None
    own, others = greg(seen, ease).predicted, greg(rival, ease).predicted
    missed, theirs = seen - own[:count], rival - others
    together = float(missed @ theirs[:count])
    shared = min(max(together / max(float(theirs[:count] @ theirs[:count]), 1e-12), 0.0), 1.0)
    left = missed - shared * theirs[:count]
    mean = float(own.mean() + shared * theirs.mean() + left.mean() - rival.mean())
    variance = (1 - count / items) * _spread(left) * (count - 1) / (count - 3)
    return Difference(mean=mean, deviation=math.sqrt(variance), count=count, df=count - 3)
