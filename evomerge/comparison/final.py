"""Choosing among finalists without fooling oneself: many tests, near ties, and the best one's luck."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence

import numpy as np

from evomerge.comparison.paired import Difference


def holm(p_values: Sequence[float]) -> tuple[float, ...]:
    """Return the p-values adjusted for being many: at α, rejecting those below α errs anywhere at most α.

    The k-th smallest of m becomes the largest of (m − j + 1)·p₍ⱼ₎ over j ≤ k, at most 1 (Holm 1979,
    https://www.jstor.org/stable/4615733). They may depend on each other in any way.
    """
    adjusted = [1.0] * len(p_values)
    largest = 0.0
    for rank, k in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, (len(p_values) - rank) * p_values[k])
        adjusted[k] = min(1.0, largest)
    return tuple(adjusted)


def one_standard_error(
    scores: Sequence[float], costs: Sequence[float], compared: Callable[[int, int], Difference | None]
) -> int:
    """Return the index of the cheapest finalist that is within one paired standard error of the best.

    `scores` are oriented, so that higher is better; of equally cheap ones the better is taken, then the
    first. `compared(best, k)` gives the paired difference of two finalists; where it is None, only an equal
    score is near enough. Breiman et al. 1984 (https://doi.org/10.1201/9781315139470) take the standard error
    of the best score itself, which for paired scores is far too wide. Raises `ValueError` without finalists.
    """
    if not scores:
        raise ValueError("to choose a finalist takes at least one, found none")
    best = max(range(len(scores)), key=lambda k: (scores[k], -k))

    def near(k: int) -> bool:
        if scores[k] == scores[best]:
            return True
        difference = compared(best, k)
        return difference is not None and difference.mean <= difference.standard_error

    within = [k for k, cost in enumerate(costs) if cost <= costs[best] and near(k)]
    return min(within, key=lambda k: (costs[k], -scores[k], k))


def between_variance(scores: Sequence[float], within: float) -> float:
    """Return τ² = max(0, Var(ȳ) − σ²): how much candidates differ beyond the noise of their scores.

    `within` is σ², the variance of one candidate's score. Zero with fewer than two candidates.
    """
    return max(0.0, statistics.variance(scores) - within) if len(scores) > 1 else 0.0


def shrunken(score: float, *, mean: float, between: float, within: float) -> float:
    """Return what a candidate's true score probably is: μ̄ + τ²/(τ² + σ²)·(ȳ − μ̄).

    `mean` is of all candidates, `between` τ² (`between_variance`), `within` σ². This is the expectation
    where true scores and noise are normal, also of a candidate chosen for its score (Efron 2011,
    https://doi.org/10.1198/jasa.2011.tm11181).
    """
    return mean if between == 0 else mean + between / (between + within) * (score - mean)


def expected_optimism(within_sd: float, candidates: int) -> float:
    """Return σ·κ_C: by how much the best of C equally good candidates looks better than it is.

    κ_C = ∫ x·C·φ(x)·Φ(x)ᶜ⁻¹ dx is the expected maximum of C standard normals; κ₅₀ = 2.25, κ₂₀₀ = 2.75.
    """
    if candidates < 1:
        raise ValueError(f"a best candidate takes at least one, found {candidates}")
    from scipy.special import log_ndtr

    # The trapezoid rule on an analytic function that vanishes at both ends is exact to the last digits.
    x, step = np.linspace(-12, 12, 3073, retstep=True)
    log_density = -(x**2) / 2 - math.log(2 * math.pi) / 2 + (candidates - 1) * log_ndtr(x)
    return within_sd * float(step * candidates * np.sum(x * np.exp(log_density)))
