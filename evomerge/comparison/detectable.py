"""What so many items can show, before any is scored.

A paired gain Δ in 0/1 scores, with a share ψ of the items on which only one of the two models is right, has
the item variance ψ − Δ². With z = z₁₋α + z_power, the one-sided test at α finds it with that power from
n = z²(ψ − Δ²)/Δ² items on (Connor 1987, https://doi.org/10.2307/2531961, takes ψ under the null hypothesis).
Δ is at most ψ: a gain larger than the `discordance` given brings its own. For graded scores, take the mean of
the squared item differences for ψ.
"""

from __future__ import annotations

import math


def items_needed(gain: float, discordance: float, *, alpha: float = 0.1, power: float = 0.8) -> int:
    """Return how many items show a true `gain` with probability `power` in a one-sided test at `alpha`."""
    if not 0 < gain <= 1:
        raise ValueError(f"a gain to detect must be a share above 0 and up to 1, found {gain:g}")
    variance = max(discordance, gain) - gain**2
    needed = _distance(alpha, power) ** 2 * variance / gain**2
    return max(1, math.ceil(needed - 1e-9))  # not one more for a rounding error


def smallest_gain(items: int, discordance: float, *, alpha: float = 0.025, power: float = 0.8) -> float:
    """Return the smallest true gain that so many items show with probability `power`.

    Solves the above: Δ = √(qψ) with q = z²/(n + z²), and Δ = q where ψ is less than that. `alpha` 0.025 is
    the lower end of a 95 % interval.
    """
    z = _distance(alpha, power)
    share = z**2 / (items + z**2)
    return math.sqrt(share * max(discordance, share))


def _distance(alpha: float, power: float) -> float:
    """Return z₁₋α + z_power, the expected value of the test statistic."""
    from scipy.special import ndtri

    return float(ndtri(1 - alpha) + ndtri(power))
