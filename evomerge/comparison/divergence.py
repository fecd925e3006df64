"""How far apart the next-token distributions of two models are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Floats: TypeAlias = NDArray[np.float64]


def divergences(one: Sequence[Any] | Floats, many: Sequence[Any] | Floats) -> Floats:
    """Return the distance `(n,)` in nats of `one (p, k)` to each of `many (n, p, k)`, log-probabilities.

    That is the Jensen-Shannon divergence (https://doi.org/10.1109/18.61115) of the distributions over the k
    tokens alone, in the mean over the p prompts: 0 where they are one, at most log 2.
    """
    p, others = distributions(one), distributions(many)
    return between(p, others)


def distributions(log_probs: Sequence[Any] | Floats) -> Floats:
    """Return the probabilities `(..., k)` of k tokens if there were no others, from log-probabilities."""
    wide = np.asarray(log_probs, dtype=np.float64)
    weights = np.exp(wide - wide.max(-1, keepdims=True))
    share: Floats = weights / weights.sum(-1, keepdims=True)
    return share


def between(p: Floats, others: Floats) -> Floats:
    """Return the distance `(n,)` of the distributions `p (p, k)` to each of `others (n, p, k)`."""
    middle = (p + others) / 2
    apart = (_weighed(p, middle) + _weighed(others, middle)).sum(-1) / 2
    mean: Floats = np.maximum(apart, 0.0).mean(-1)
    return mean


def _weighed(p: Floats, q: Floats) -> Floats:
    """Return p ln(p / q), entry by entry; no log-probability here is so low that p or q were 0."""
    found: Floats = p * np.log(p / q)
    return found
