"""How easy items are, by the candidates scored so far, and how a candidate fits that, by a shift and a slope.

Logistic where scores are 0 or 1, else linear; `estimate.py` makes scores of what is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

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
        return Ease(totals=self.totals + new, models=self.models + 1, binary=self.binary and is_binary(new))

    @property
    def mean(self) -> Vector:
        """The mean score of each item `(N,)`; NaN before any candidate."""
        return self.totals / self.models if self.models else np.full_like(self.totals, math.nan)

    @property
    def logits(self) -> Vector:
        """The log-odds of passing each item `(N,)`, finite also where all or none did (scores 0 and 1)."""
        return np.log((self.totals + 0.5) / (self.models - self.totals + 0.5))


@dataclass(frozen=True, kw_only=True)
class Fit:
    """What is foreseen of a candidate, and how that hangs on its shift and slope."""

    predicted: Vector  # (N,)
    noise: Vector  # (N,) variance of a score about its prediction
    design: Matrix  # (N, 2) what shift and slope are multiplied by
    gradient: Matrix  # (N, 2) of the predictions by shift and slope
    inverse: Matrix  # (2, 2) of the curvature
    covariance: Matrix  # (2, 2) of shift and slope


def checked(prefix_scores: Sequence[float] | Vector, ease: Ease) -> Vector:
    """Return the scores of the first items. Raises `ValueError` of none, or more than `ease` knows."""
    seen = np.asarray(prefix_scores, dtype=np.float64)
    if not 0 < len(seen) <= len(ease.totals):
        raise ValueError(f"an estimate takes 1 to {len(ease.totals)} scores, found {len(seen)}")
    return seen


def spread(values: Vector | Matrix) -> Vector:
    """Return the sample variance of each row of `values`, or 1/n where they are all equal.

    As in paired differences: that a small sample never differed does not show that its population cannot.
    """
    count = values.shape[-1]
    variances = values.var(axis=-1, ddof=min(1, count - 1))
    return np.asarray(np.where(np.ptp(values, axis=-1) > 0, variances, 1 / count), dtype=np.float64)


def foreseen(seen: Vector, ease: Ease) -> Vector:
    """Return what a candidate should score on each item `(N,)`, after its scores on the first."""
    fit = fit_to(seen, ease)
    return np.full(len(ease.totals), seen.mean()) if fit is None else fit.predicted


def foreseen_rows(scores: Matrix, ease: Ease) -> Matrix:
    """Return the same of candidates `(R, N)` that have all their scores."""
    if not (ease.models and ease.binary and is_binary(scores)):
        return np.stack([foreseen(row, ease) for row in scores])
    return _logistic_rows(scores, ease.logits)


def fit_to(seen: Vector, ease: Ease) -> Fit | None:
    """Return the fit to the scores of the first items; None where there is nothing to go by."""
    if not ease.models or len(seen) < 2:
        return None
    return _logistic(seen, ease.logits) if ease.binary and is_binary(seen) else _linear(seen, ease.mean)


def _logistic(seen: Vector, ease: Vector) -> Fit:
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
    predicted = sigmoid(design @ at)
    noise = predicted * (1 - predicted)
    inverse = np.asarray(np.linalg.inv(curvature), dtype=np.float64)
    return Fit(
        predicted=predicted,
        noise=noise,
        design=design,
        gradient=design * noise[:, None],
        inverse=inverse,
        covariance=inverse,
    )


def _newton(seen: Vector, sample: Matrix, at: Vector) -> tuple[Vector, Matrix]:
    """Return Newton's step from `at` and the curvature there, of minus the log-posterior."""
    passing = sigmoid(sample @ at)
    precision = _PRIOR_DEVIATION**-2
    curvature = (sample * (passing * (1 - passing))[:, None]).T @ sample + np.diag(precision)
    slope = sample.T @ (seen - passing) - precision * (at - _PRIOR_MEAN)
    return np.linalg.solve(curvature, slope), curvature


def _logistic_rows(scores: Matrix, ease: Vector) -> Matrix:
    """Return the predictions of `_logistic` for each row of `scores (R, N)`, at once.

    Sums are along rows, and so the same to the last digit whoever else is among the rows.
    """
    at = np.tile(_PRIOR_MEAN, (len(scores), 1))  # (R, 2)

    def log_posterior(rows: NDArray[np.intp], at: Matrix) -> Vector:
        logits = at[:, :1] + at[:, 1:] * ease
        told = (scores[rows] * logits - np.logaddexp(0.0, logits)).sum(axis=1)
        return np.asarray(told - (((at - _PRIOR_MEAN) / _PRIOR_DEVIATION) ** 2).sum(axis=1) / 2)

    rows = np.arange(len(scores))
    value = log_posterior(rows, at)
    for _ in range(_STEPS):
        step = _newton_rows(scores[rows], ease, at[rows])
        moving = abs(step).max(axis=1) >= _SETTLED
        rows, step = rows[moving], step[moving]
        if not len(rows):
            break
        reached = log_posterior(rows, at[rows] + step)
        while (overshot := reached < value[rows] - _SETTLED).any():
            step[overshot] /= 2
            reached[overshot] = log_posterior(rows[overshot], at[rows[overshot]] + step[overshot])
        at[rows] += step
        value[rows] = reached
    return sigmoid(at[:, :1] + at[:, 1:] * ease)


def _newton_rows(scores: Matrix, ease: Vector, at: Matrix) -> Matrix:
    """Return Newton's step `(R, 2)` of each row from where it is."""
    passing = sigmoid(at[:, :1] + at[:, 1:] * ease)
    missed, weights = scores - passing, passing * (1 - passing)
    by_shift, by_slope = _PRIOR_DEVIATION**-2
    shift = missed.sum(axis=1) - by_shift * (at[:, 0] - _PRIOR_MEAN[0])
    slope = (missed * ease).sum(axis=1) - by_slope * (at[:, 1] - _PRIOR_MEAN[1])
    weighted = weights * ease
    a, b = weights.sum(axis=1) + by_shift, weighted.sum(axis=1)
    c = (weighted * ease).sum(axis=1) + by_slope
    determinant = a * c - b * b  # positive: the prior's part is
    return np.stack([(c * shift - b * slope) / determinant, (a * slope - b * shift) / determinant], axis=1)


def _linear(seen: Vector, ease: Vector) -> Fit:
    """Fit score = ease + shift + change·(ease − its mean over the items seen).

    The change of slope is held towards 0 by ridge, as the logistic slope is towards 1. The shift is free, for
    the scores' unit is unknown.
    """
    count = len(seen)
    centred = ease - ease[:count].mean()
    above = seen - ease[:count]
    apart = float(above.var(ddof=1))
    # Scores that are all as far above the ease are no reason to change the slope.
    held = apart / _PRIOR_DEVIATION[1] ** 2 if apart > 0 else math.inf
    inverse = np.diag([1 / count, 1 / (float(centred[:count] @ centred[:count]) + held)])
    design = np.stack([np.ones_like(ease), centred], axis=1)
    predicted = ease + design @ (inverse @ (design[:count].T @ above))
    missed = seen - predicted[:count]
    noise = float(missed @ missed) / max(count - 2, 1)
    return Fit(
        predicted=predicted,
        noise=np.full_like(ease, noise),
        design=design,
        gradient=design,
        inverse=inverse,
        covariance=noise * inverse,
    )


def sigmoid(logits: Vector) -> Vector:
    """Return 1 / (1 + exp(-logits))."""
    return (1 + np.tanh(logits / 2)) / 2  # overflows nowhere


def is_binary(scores: Vector | Matrix) -> bool:
    """Return whether all scores are 0 or 1."""
    return bool(np.all((scores == 0) | (scores == 1)))
