"""TALL masks: which entries of a sum of task vectors a task uses, and which of them enough tasks use.

Wang et al. 2024, https://arxiv.org/abs/2405.07813.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge.merge.kernels.weighting import per_source

if TYPE_CHECKING:
    from torch import Tensor


def task_masks(deltas: Tensor, merged: Tensor, tall_lambda: tuple[float, ...]) -> Tensor:
    """Return `(n, *s)`, true where |δᵢ| > λᵢ·|τ − δᵢ| for `deltas (n, *s)` and their merged vector τ `(*s)`.

    Strictly, as in the authors' code; the paper's ≥ would also count entries that are zero everywhere.
    """
    return deltas.abs() > per_source(tall_lambda, deltas) * (merged - deltas).abs()


def consensus_mask(masks: Tensor, least: float) -> Tensor:
    """Return `(*s)`, true where at least `least` of `masks (n, *s)` are."""
    return masks.sum(0) >= least
