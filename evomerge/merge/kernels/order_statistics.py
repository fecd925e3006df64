"""Order statistics of vectors too long to hold: exact, in two passes over their parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from torch import Tensor

Rows: TypeAlias = "Callable[[], Iterator[Tensor]]"
"""Call it for one more pass over tensors `(n, *s)`; the rows i of all of them make up vector i."""

_HALF = 16
_BINS = 1 << _HALF
_CHUNK = 1 << 18
"""Entries counted at a time: their keys stay in the cache, and take no memory worth speaking of."""
_SHORT = _CHUNK
"""Vectors of so many entries are simply held: there the empty bins would take longest."""


@dataclass(frozen=True, kw_only=True)
class Ranked:
    """An entry of a vector by its rank, and how many entries exceed it."""

    value: float
    above: int


def order_statistics(rows: Rows, ranks: Sequence[Sequence[int]]) -> list[list[Ranked]]:
    """Return for each of n vectors the entries of the ranks asked for, holding one tensor at a time.

    Rank 0 is the least entry and −1 the greatest, as an index into the sorted vector. float32 numbers are
    ordered like integers made of their bits: the first pass counts the high halves of these, the second the
    low halves of those that share a high half with an entry sought. Raises `IndexError` for a rank that is
    not there.
    """
    held = _held(rows)
    if held is not None:
        return [[_found(vector, rank) for rank in wanted] for vector, wanted in zip(held, ranks, strict=True)]
    whole = _count(rows, [[None]] * len(ranks))
    places = [
        [_place(counts, rank) for rank in wanted] for (counts,), wanted in zip(whole, ranks, strict=True)
    ]
    parts = _count(rows, [[place.bin for place in row] for row in places])
    return [
        [_ranked(counts, place) for counts, place in zip(found, row, strict=True)]
        for found, row in zip(parts, places, strict=True)
    ]


def _held(rows: Rows) -> Tensor | None:
    """Return the vectors `(n, d)` if they are short, else None."""
    import torch

    parts, size = [], 0
    for tensor in rows():
        parts.append(tensor.reshape(len(tensor), math.prod(tensor.shape[1:])))
        size += parts[-1].shape[1]
        if size > _SHORT:
            return None
    return torch.cat(parts, dim=1)


def _found(vector: Tensor, rank: int) -> Ranked:
    inside = _checked(rank, len(vector))
    value = float(vector.kthvalue(inside + 1).values)
    return Ranked(value=value, above=int((vector > value).sum()))


def _checked(rank: int, size: int) -> int:
    if not -size <= rank < size:
        raise IndexError(f"no rank {rank} among {size} entries")
    return rank % size


@dataclass(frozen=True, kw_only=True)
class _Place:
    """The bin that holds an entry, the entry's rank inside it, and how many entries lie above the bin."""

    bin: int
    rank: int
    above: int


def _count(rows: Rows, bins: Sequence[Sequence[int | None]]) -> list[list[Tensor]]:
    """Return, per vector and bin, how often each low half occurs in that bin; each high half for None."""
    import torch

    counts = [[torch.zeros(_BINS, dtype=torch.int64) for _ in row] for row in bins]
    for tensor in rows():
        for vector, row, sums in zip(tensor, bins, counts, strict=True):
            for chunk in vector.flatten().split(_CHUNK):
                keys = _keys(chunk)
                high = (keys >> _HALF) + _BINS // 2
                for bin_, total in zip(row, sums, strict=True):
                    halves = high if bin_ is None else keys[high == bin_] & (_BINS - 1)
                    total += torch.bincount(halves, minlength=_BINS).cpu()
    return counts


def _keys(values: Tensor) -> Tensor:
    """Return int32 numbers ordered as the float32 `values` are; both zeros become 0."""
    import torch

    bits = values.contiguous().view(torch.int32)
    return bits.where(bits >= 0, -(bits & 0x7FFFFFFF))


def _value(key: int) -> float:
    import torch

    magnitude = float(torch.tensor(abs(key), dtype=torch.int32).view(torch.float32))
    return -magnitude if key < 0 else magnitude


def _place(counts: Tensor, rank: int) -> _Place:
    """Return where the entry of a rank lies among entries counted by bin."""
    upto = counts.cumsum(0)
    size = int(upto[-1])
    rank = _checked(rank, size)
    found = int((upto <= rank).sum())
    below = int(upto[found - 1]) if found else 0
    return _Place(bin=found, rank=rank - below, above=size - int(upto[found]))


def _ranked(counts: Tensor, place: _Place) -> Ranked:
    inside = _place(counts, place.rank)
    key = (place.bin - _BINS // 2) * _BINS + inside.bin
    return Ranked(value=_value(key), above=place.above + inside.above)
