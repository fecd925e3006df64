"""OPCM's step: what of a new task vector does not lie along what was merged before."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 4096
"""Rows taken to float64 at a time."""
_SMALLEST = 1e-6
"""Singular values below this share of the greatest, times the longer side, are rounding."""


def project_out(merged: Tensor, delta: Tensor, alpha: float, *, none_beyond: bool) -> Tensor:
    """Return the matrix `delta` without what lies along the main directions of the matrix `merged`.

    With merged = U S Vᵀ and P = Uᵀ delta V, what goes is the block P[:r, :r], where the first r singular
    values make up the share `alpha` of their sum, and the diagonal of P. An `alpha` of 1 or more takes all
    directions, or none if `none_beyond`. Directions without a singular value to speak of are arbitrary and
    stay.

    U is never formed: with U = merged V S⁻¹, all it takes are the products mergedᵀ merged = V S² Vᵀ and
    mergedᵀ delta, of the shorter side's size, in float64. That finds singular values to 1e-8 of the greatest.
    """
    import torch

    if not delta.numel():
        return delta
    if merged.shape[0] < merged.shape[1]:
        return project_out(merged.T, delta.T, alpha, none_beyond=none_beyond).T
    squares, v = torch.linalg.eigh(_product(merged, merged))  # ascending
    s, v = squares.clamp(min=0).sqrt().flip(0), v.flip(1)  # (n), (n, n)
    rank = int((s > _SMALLEST * s[0] * len(merged)).sum())
    s, v = s[:rank], v[:, :rank]
    r = _leading(s, alpha, none_beyond=none_beyond)
    p = v.T @ _product(merged, delta) @ v / s[:, None]  # Uᵀ delta V, (rank, rank)
    gone = p.diag().diag()
    gone[:r, :r] = p[:r, :r]
    along = (v / s) @ gone @ v.T  # U gone Vᵀ = merged along, (n, n)
    left = [
        (part.double() - before.double() @ along).float()
        for part, before in zip(_blocks(delta), _blocks(merged), strict=True)
    ]
    return torch.cat(left)


def _leading(s: Tensor, alpha: float, *, none_beyond: bool) -> int:
    """Return how many leading singular values come before their sum exceeds `alpha` of the whole."""
    if alpha >= 1:
        return 0 if none_beyond else len(s)
    return int((s.cumsum(0) <= alpha * s.sum()).sum())


def _product(one: Tensor, other: Tensor) -> Tensor:
    """Return oneᵀ other `(n, n)` in float64 for two `(m, n)`."""
    total = one.new_zeros((one.shape[1], other.shape[1])).double()
    for a, b in zip(_blocks(one), _blocks(other), strict=True):
        total.addmm_(a.double().T, b.double())
    return total


def _blocks(matrix: Tensor) -> Iterator[Tensor]:
    for start in range(0, len(matrix), _ROWS):
        yield matrix[start : start + _ROWS]
