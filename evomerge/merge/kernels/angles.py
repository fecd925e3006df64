"""Inner products of a tensor's operands in float64: norms, cosines and angles follow from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_BLOCK = 1 << 24
"""How many numbers to hold in float64 at a time."""


def whole(operands: Tensor) -> Tensor:
    """Return `operands (n, *s)` as `(n, 1, d)`: each a single vector."""
    return operands.reshape(len(operands), 1, -1)


def rows(operands: Tensor) -> Tensor:
    """Return `operands (n, *s, d)` as `(n, r, d)`: vectors along the last dimension."""
    return operands.flatten(1, -2) if operands.ndim > 2 else whole(operands)


def inner_products(vectors: Tensor) -> Tensor:
    """Return the inner products `(r, n, n)`, in float64, of `vectors (n, r, d)`, for each r apart."""
    n, r, d = vectors.shape
    products = vectors.new_zeros((r, n, n)).double()
    width = max(1, _BLOCK // max(1, n * r))
    for start in range(0, d, width):
        wide = vectors[..., start : start + width].double().transpose(0, 1)  # (r, n, width)
        products += wide @ wide.mT
    return products


def lengths(products: Tensor) -> Tensor:
    """Return the norms `(r, n)` of vectors with these inner products `(r, n, n)`."""
    return products.diagonal(dim1=-2, dim2=-1).sqrt()
