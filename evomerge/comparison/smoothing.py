"""What noisy values say together: a Gaussian process over the points at which they were measured.

Two candidates that differ by less than the noise of their scores cannot be ranked by these, but what their
neighbours scored says more. Hyperparameters are the most probable on a grid: values are standardised and
points come in units of the search's own step, so that a coarse one covers what occurs. Rasmussen and
Williams 2006, https://gaussianprocess.org/gpml, chapters 2 and 5.
"""

from __future__ import annotations

import functools
import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular
from threadpoolctl import ThreadpoolController

Vector = NDArray[np.float64]  # (n,)
Matrix = NDArray[np.float64]  # (n, n) or (n, d)

_LENGTHS = (0.5, 1.0, 2.0, 4.0, 8.0)  # in standard deviations of a step, per root of the dimension
_SIGNALS = (0.1, 0.3, 1.0, 3.0, 10.0)  # variances, of standardised values
_NOISES = (1e-6, 1e-3, 0.03, 0.1, 0.3, 0.6)
_FEWEST = 4


@functools.cache
def _blas() -> ThreadpoolController:
    """Return what sets the threads of linear algebra: several take ten times as long on small matrices."""
    return ThreadpoolController().select(user_api="blas")


@dataclass(frozen=True, kw_only=True)
class _Posterior:
    evidence: float
    means: Vector


def smoothed(points: Matrix, values: Vector, variances: Vector) -> Vector:
    """Return what the `values (n,)` at `points (n, d)` most probably are without their noise.

    `variances (n,)` are what is known of the noise of each; noise that all have in common is estimated. Fewer
    than four values, or equal ones, come back as they are.
    """
    if len(values) < _FEWEST or np.ptp(values) == 0:
        return values
    mean, deviation = float(values.mean()), float(values.std())
    standard, known = (values - mean) / deviation, variances / deviation**2
    squares = ((points[:, None] - points[None]) ** 2).sum(axis=2) / points.shape[1]
    found = (
        _posterior(signal * kernel, standard, known + noise)
        for kernel in (np.exp(-squares / (2 * length**2)) for length in _LENGTHS)
        for signal, noise in itertools.product(_SIGNALS, _NOISES)
    )
    with _blas().limit(limits=1):
        best = max((each for each in found if each is not None), key=lambda each: each.evidence, default=None)
    return values if best is None else mean + deviation * best.means


def _posterior(covariance: Matrix, values: Vector, noise: Vector) -> _Posterior | None:
    """Return the posterior means, with a constant trend under a flat prior; None where it is singular."""
    try:
        root = np.linalg.cholesky(covariance + np.diag(noise))
    except np.linalg.LinAlgError:
        return None
    sides = np.stack([np.ones_like(values), values], axis=1)
    ones, white = solve_triangular(root, sides, lower=True, check_finite=False).T
    information = float(ones @ ones)
    trend = float(ones @ white) / information
    missed = white - trend * ones
    evidence = -float(missed @ missed) / 2 - float(np.log(np.diag(root)).sum()) - math.log(information) / 2
    weights = solve_triangular(root, missed, lower=True, trans=1, check_finite=False)
    return _Posterior(evidence=evidence, means=trend + covariance @ weights)
