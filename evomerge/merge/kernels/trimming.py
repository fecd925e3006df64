"""Keeping the largest entries of task vectors, exactly as many as asked for."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.merge.kernels.order_statistics import Ranked, Rows, order_statistics
from evomerge.merge.method import Stream

if TYPE_CHECKING:
    from torch import Tensor


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
        ties[ties.nonzero().flatten()[spare:]] = False
    keep = (magnitude > threshold) | ties
    return delta * keep.reshape(delta.shape)


def global_cuts(rows: Rows, counts: Sequence[int]) -> list[Ranked]:
    """Return for each of n vectors its `counts[i]`-th largest magnitude, holding one tensor at a time.

    The tensors that `rows` gives are overwritten. Nothing exceeds the cut of a vector of which nothing is
    to be kept.
    """
    found = order_statistics(
        lambda: (tensor.abs_() for tensor in rows()), [[-count] if count > 0 else [] for count in counts]
    )
    return [row[0] if row else Ranked(value=math.inf, above=0) for row in found]


def share_out(stream: Stream, cuts: Sequence[Ranked], counts: Sequence[int]) -> dict[str, tuple[int, ...]]:
    """Return how many of the entries that equal the cuts each tensor keeps, by name and source.

    Together with those above the cuts they are as many as `counts`; tensors whose names come first are
    served first, so that nothing depends on where a tensor is stored.
    """
    ties = {
        view.site.tensor: [
            int((delta.abs() == cut.value).sum()) for delta, cut in zip(view.load(), cuts, strict=True)
        ]
        for view in stream()
    }
    left = [max(0, count - cut.above) for count, cut in zip(counts, cuts, strict=True)]
    shares: dict[str, tuple[int, ...]] = {}
    for name in sorted(ties):
        shares[name] = tuple(min(tied, spare) for tied, spare in zip(ties[name], left, strict=True))
        left = [spare - taken for spare, taken in zip(left, shares[name], strict=True)]
    return shares
