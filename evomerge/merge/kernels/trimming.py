"""Keeping the largest entries of task vectors, exactly as many as asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Passes: TypeAlias = "Callable[[], Iterator[Tensor]]"
"""Call it for one more pass over the tensors of one task vector."""


def kept_count(density: float, size: int) -> int:
    """Return how many of `size` entries a density keeps: truncated, as mergekit and the papers do."""
    return size if density >= 1 else max(0, int(density * size))


def trim(delta: Tensor, count: int, *, every_tie: bool = False) -> Tensor:
    """Return `delta (*s)` with all but its `count` largest entries zero.

    Of equal entries at the cut the lower indices stay, or all of them with `every_tie`.
    """
    size = delta.numel()
    if count >= size:
        return delta
    if count <= 0:
        return delta.new_zeros(delta.shape)
    magnitude = delta.abs().flatten()
    threshold = magnitude.kthvalue(size - count + 1).values
    spare = None if every_tie else count - int((magnitude > threshold).sum())
    return trim_at(delta, float(threshold), spare)


def trim_at(delta: Tensor, threshold: float, spare: int | None) -> Tensor:
    """Return `delta` where it exceeds `threshold`, and the first `spare` (None: all) that equal it."""
    magnitude = delta.abs().flatten()
    ties = magnitude == threshold
    if spare is not None:
        ties &= ties.cumsum(0) <= spare
    keep = (magnitude > threshold) | ties
    return delta * keep.reshape(delta.shape)


@dataclass(frozen=True, kw_only=True)
class Cut:
    """The k-th largest magnitude of a whole task vector, and how many entries exceed it."""

    threshold: float
    above: int


def global_cut(tensors: Passes, count: int) -> Cut:
    """Return the exact `count`-th largest magnitude over all tensors, holding one at a time.

    Magnitudes of float32 are ordered like their bit patterns: one pass counts the high halves, a
    second the low halves inside the half that holds the cut.
    """
    import torch

    high = torch.zeros(1 << 15, dtype=torch.int64)
    for tensor in tensors():
        high += torch.bincount((_bits(tensor) >> 16).cpu(), minlength=1 << 15)
    half, above = _bin_of(high, count)
    low = torch.zeros(1 << 16, dtype=torch.int64)
    for tensor in tensors():
        bits = _bits(tensor)
        inside = bits[bits >> 16 == half]
        low += torch.bincount((inside & 0xFFFF).cpu(), minlength=1 << 16)
    rest, more = _bin_of(low, count - above)
    pattern = torch.tensor([half << 16 | rest], dtype=torch.int32)
    return Cut(threshold=float(pattern.view(torch.float32)), above=above + more)


def _bits(tensor: Tensor) -> Tensor:
    import torch

    return tensor.abs().flatten().contiguous().view(torch.int32).long()


def _bin_of(histogram: Tensor, count: int) -> tuple[int, int]:
    """Return the bin that holds the `count`-th entry from the top, and how many lie above the bin."""
    from_top = histogram.flip(0).cumsum(0)
    position = int((from_top < count).sum())
    above = int(from_top[position - 1]) if position else 0
    return len(histogram) - 1 - position, above
