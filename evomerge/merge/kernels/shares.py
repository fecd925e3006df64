"""Shares of models in a mean."""

from __future__ import annotations

from collections.abc import Sequence

from evomerge.errors import MergeError
from evomerge.merge.kernels.weighting import SMALLEST_SUM
from evomerge.parameters import Gene

SHARE = Gene(
    low=0.0,
    high=1.0,
    default=1.0,
    meaning="share of each model",
    least=0.0,
    also={"weights": float, "coefficients": float},
)
SIGNED_SHARE = Gene(low=0.0, high=1.0, default=1.0, meaning="share of each model", also={"weights": float})
"""A share that may be negative."""


def shares(weight: Sequence[float], tensor: str) -> tuple[float, ...]:
    """Return `weight (n,)` over its sum. Raises `MergeError` naming `tensor` if that is near zero."""
    total = sum(weight)
    if abs(total) < SMALLEST_SUM:
        raise MergeError(
            f"the weights of `{tensor}` sum to {total:g}, so they are no shares; keep their sum apart from "
            "zero, or set `normalize: false` where the method has it"
        )
    return tuple(each / total for each in weight)
