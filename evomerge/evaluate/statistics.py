"""Comparing two models on the same items.

Pairing takes out what both find hard: the interval is of the mean difference, by Student's t.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence


def mean_interval(differences: Sequence[float], *, level: float = 0.95) -> tuple[float, float]:
    """Return the confidence interval of the mean of at least two paired differences.

    Where all differences are the same, their standard deviation counts as 1/√n: so few items that
    agree prove nothing yet.
    """
    from scipy.special import stdtrit  # of scipy.stats, without its second of importing

    count = len(differences)
    deviation = statistics.stdev(differences) or 1 / math.sqrt(count)
    half = float(stdtrit(count - 1, (1 + level) / 2)) * deviation / math.sqrt(count)
    mean = statistics.fmean(differences)
    return mean - half, mean + half
