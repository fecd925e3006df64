"""Weighted sums over sources."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.merge.method import MergeBlock, Vectors
from evomerge.parameters import Choice, Gene

if TYPE_CHECKING:
    from torch import Tensor

SMALLEST_SUM = 1e-8
"""A sum of weights below this cannot be divided by."""

TASK_WEIGHT = Gene(
    low=-0.5,
    high=1.5,
    default=1.0,
    meaning="how much of each task vector; negative unlearns it",
    also={"weights": float},
)
LAMBDA = Gene(
    low=0.1,
    high=2.0,
    default=1.0,
    meaning="multiplies the sum",
    searched=False,
    grain=1e-6,
    also={"scaling_coefficient": float},
)
NORMALIZE = Choice(options=(True, False), default=False, meaning="divide by the sum of weights")


def per_source(values: Sequence[float], operands: Tensor) -> Tensor:
    """Return `values (n,)` shaped to multiply `operands (n, *s)`."""
    return operands.new_tensor(list(values)).reshape(-1, *[1] * (operands.ndim - 1))


def add_weighted(
    base: Tensor, deltas: Tensor, weight: Sequence[float], *, scale: float, normalize: bool
) -> Tensor:
    """Return θ₀ + λ Σ wᵢ δᵢ, the sum over Σ wᵢ if normalised: `base (*s)`, `deltas (n, *s)` to `(*s)`.

    Weights that cancel out divide by one, as in mergekit.
    """
    total = weighted_sum(deltas, weight)
    return scaled(total, scale / divisor(weight, normalize=normalize)).add_(base)


def divisor(weight: Sequence[float], *, normalize: bool) -> float:
    """Return the sum of weights if they are to be normalised and do not cancel out, else one."""
    shares = sum(weight)
    return shares if normalize and abs(shares) >= SMALLEST_SUM else 1.0


def scale_rows(rows: Tensor, weight: Sequence[float]) -> Tensor:
    """Return `rows (n, *s)`, written over, each times its weight."""
    for row, factor in zip(rows, weight, strict=True):
        if factor != 1:
            row.mul_(factor)
    return rows


def adding(vectors: Vectors, weight: Sequence[float], *, scale: float, normalize: bool) -> MergeBlock:
    """Return what adds to a block of the base what `vectors` makes of blocks of task vectors, weighted."""

    def merge(base: Tensor | None, operands: Tensor, start: int) -> Tensor:
        assert base is not None
        return add_weighted(base, vectors(operands, start), weight, scale=scale, normalize=normalize)

    return merge


def weighted_sum(operands: Tensor | Sequence[Tensor], weight: Sequence[float]) -> Tensor:
    """Return Σ wᵢ xᵢ for `operands (n, *s)` and `weight (n,)`, in the dtype of the first operand."""
    total = operands[0] * weight[0]
    for operand, factor in zip(operands[1:], weight[1:], strict=True):
        # not at once: that would round otherwise than a compiled loop
        total.add_(operand.to(total.dtype) * factor)
    return total


def scaled(total: Tensor, factor: float) -> Tensor:
    """Return `total (*s)`, written over, times a factor."""
    return total if factor == 1 else total.mul_(factor)
