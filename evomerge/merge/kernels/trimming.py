"""Keeping the largest entries of task vectors, exactly as many as asked for."""

from __future__ import annotations

import math
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.merge.kernels.order_statistics import Ranked, Rows, order_statistics
from evomerge.merge.method import Stream

if TYPE_CHECKING:
    from torch import Tensor


def kept_count(density: float, size: int) -> int:
    """Return how many of `size` entries a density keeps: truncated, as mergekit and the papers do."""
    return size if density >= 1 else max(0, int(density * size))


@dataclass(frozen=True, kw_only=True)
class Cut:
    """What stays of a vector: entries whose magnitude exceeds `value`, and the first `ties` that equal it.

    All of those with None.
    """

    value: float
    ties: int | None = None


_NO_END = 2**62

EVERYTHING = Cut(value=0.0)
NOTHING = Cut(value=math.inf, ties=0)


class Trimmer:
    """Sets to zero what a cut leaves out of a vector that is given part by part, from its first entry on."""

    def __init__(self, cut: Cut) -> None:
        self._value = cut.value
        self._left = cut.ties

    def __call__(self, part: Tensor, into: Tensor) -> None:
        """Write the vector's next entries `(*s)`, trimmed, into another tensor of the shape.

        One operation does it but where ties run out: `hardshrink` clears whatever does not exceed a number,
        and what reaches a number is what exceeds the one before.
        """
        import torch

        if self._value == 0:  # ties are zeros
            into.copy_(part)
            return
        ties = part.abs().eq_(self._value) if self._left else None  # 1 or 0: summed faster than booleans
        found = int(ties.sum()) if ties is not None else 0
        all_stay = self._left is None or (ties is not None and found <= self._left)
        torch.hardshrink(part, _before(self._value) if all_stay else self._value, out=into)
        if self._left is None:
            return
        if ties is not None and not all_stay:
            first = ties.flatten().nonzero().flatten()[: self._left]
            into.view(-1)[first] = part.reshape(-1)[first]
        self._left = max(0, self._left - found)


def end_of_ties(magnitudes: Iterable[Tensor], cut: Cut) -> int:
    """Return the place before which those of the `magnitudes`, given in parts, stay that equal the cut.

    Parts are written over.
    """
    if cut.ties is None or not cut.ties:
        return _NO_END if cut.ties is None else 0
    left, start = cut.ties, 0
    for part in magnitudes:
        ties = part.flatten().eq_(cut.value)  # 1 or 0: summed faster than booleans
        found = int(ties.sum())
        if found >= left:
            return start + int(ties.nonzero()[left - 1]) + 1
        left, start = left - found, start + part.numel()
    return start


def trim_all(trimmers: Sequence[Trimmer], parts: Tensor) -> Tensor:
    """Return the next entries `(n, *s)` of n vectors, each trimmed by its own."""
    trimmed = parts.new_empty(parts.shape)
    for trimmer, part, into in zip(trimmers, parts, trimmed, strict=True):
        trimmer(part, into)
    return trimmed


def cut_of(vector: Tensor, count: int, *, every_tie: bool = False) -> Cut:
    """Return the cut above which `count` entries of `vector (*s)` stay (`every_tie`: all that equal it)."""
    size = vector.numel()
    if count >= size:
        return EVERYTHING
    if count <= 0:
        return NOTHING
    magnitude = vector.abs().flatten()
    value = magnitude.kthvalue(size - count + 1).values
    ties = None if every_tie else count - int((magnitude > value).sum())
    return Cut(value=float(value), ties=ties)


def trim(delta: Tensor, count: int, *, every_tie: bool = False) -> Tensor:
    """Return `delta (*s)` with all but its `count` largest entries zero.

    Of equal entries at the cut the lower indices stay, or all of them with `every_tie`.
    """
    return _trimmed(delta, cut_of(delta, count, every_tie=every_tie))


def trim_at(delta: Tensor, threshold: float, spare: int | None) -> Tensor:
    """Return `delta` where it exceeds `threshold`, and the first `spare` (None: all) that equal it."""
    return _trimmed(delta, Cut(value=threshold, ties=spare))


def _trimmed(delta: Tensor, cut: Cut) -> Tensor:
    trimmed = delta.new_empty(delta.shape)
    Trimmer(cut)(delta, trimmed)
    return trimmed


def _before(value: float) -> float:
    """Return the greatest float32 below a positive `value` of float32."""
    (bits,) = struct.unpack("<i", struct.pack("<f", value))
    (found,) = struct.unpack("<f", struct.pack("<i", bits - 1))
    return float(found)


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
