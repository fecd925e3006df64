"""Order statistics of one vector, asked for again and again: counted once, then looked up.

float32 magnitudes are ordered like the integers of their bits. They are counted by all of these but the eight
lowest, which are zero in nearly all differences of bfloat16 numbers: what has a count to itself is known
exactly. Of other numbers it is known how many lie in each narrow range, and those of a range are sorted when
they are asked for.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from evomerge.merge.kernels.trimming import EVERYTHING, NOTHING, Cut

if TYPE_CHECKING:
    from torch import Tensor

Magnitudes: TypeAlias = "Callable[[], Iterator[Tensor]]"
"""Call it for one more pass over a vector's magnitudes, float32, in parts."""

_LOW = 8
"""Bits that are not counted by."""
_LOWER = 6
"""Further bits that are not counted by where there would be more than `_MANY` counts."""
_MANY = 1 << 17
_LONG = 1 << 22
_BINADES = 24
"""Powers of two below the greatest magnitude that are told apart; what is smaller is one range."""
_PER_BINADE = 1 << 23 - _LOW
_LEAST = 1
"""The bits of the least positive number."""


@dataclass(frozen=True, kw_only=True)
class Ladder:
    """How many entries of a vector have each magnitude, or lie in each range of magnitudes, descending.

    Range k is that of bits from `lows[k]` to below `lows[k] + widths[k]`, int32; `upto[k]` entries lie in it
    or above it.
    """

    lows: Tensor
    widths: Tensor
    upto: Tensor

    def cut(self, count: int, magnitudes: Magnitudes, *, every_tie: bool = False) -> Cut:
        """Return the cut above which `count` entries stay (with `every_tie`, all that equal it)."""
        import torch

        if not len(self.upto) or count >= self.upto[-1]:
            return EVERYTHING
        if count <= 0:
            return NOTHING
        place = int(torch.searchsorted(self.upto, count))
        above = int(self.upto[place - 1]) if place else 0
        low, width, upto = (int(each[place]) for each in (self.lows, self.widths, self.upto))
        wanted, tied = count - above, upto - above  # from the greatest of the range
        if width > 1:
            value, wanted, tied = _among(magnitudes, low, low + width, wanted)
        else:
            value = _number(low)
        return Cut(value=value, ties=None if every_tie or wanted == tied else wanted)


def count_magnitudes(magnitudes: Magnitudes) -> Ladder:
    """Return the ladder of a vector, in two passes over it."""
    import torch

    top = max((_bits_of(part.max()) for part in magnitudes() if part.numel()), default=0)
    floor = max(0, (top >> _LOW) - _BINADES * _PER_BINADE >> _LOWER << _LOWER)
    counts, mixed = torch.zeros((2, (top >> _LOW) - floor + 1), dtype=torch.int64)
    zeros = 0
    for part in _in_long_parts(magnitudes()):
        bits = part.view(torch.int32)
        places = (bits >> _LOW).sub_(floor).clamp_(min=0)
        counts += torch.bincount(places, minlength=len(counts)).cpu()
        mixed += torch.bincount(places[(bits & (1 << _LOW) - 1) > 0], minlength=len(counts)).cpu()
        zeros += part.numel() - int(torch.count_nonzero(bits))
    counts[0] -= zeros
    mixed[0] = 1
    return _ladder(floor << _LOW, counts, mixed > 0, zeros)


def _in_long_parts(parts: Iterator[Tensor]) -> Iterator[Tensor]:
    """Yield the entries in parts long enough that setting up their counts does not count."""
    import torch

    held: list[Tensor] = []
    for part in parts:
        held.append(part.reshape(-1))
        if sum(map(len, held)) >= _LONG:
            yield torch.cat(held)
            held = []
    if held:
        yield torch.cat(held)


def _ladder(floor: int, counts: Tensor, mixed: Tensor, zeros: int) -> Ladder:
    """Return the ranges that hold entries; the first of `counts` is of all below the second, but zeros."""
    import torch

    step = 1 << _LOW
    if int((counts > 0).sum()) > _MANY:
        counts = torch.nn.functional.pad(counts, (0, -len(counts) % (1 << _LOWER)))
        counts, step = counts.reshape(-1, 1 << _LOWER).sum(1), step << _LOWER
        mixed = torch.ones_like(counts, dtype=torch.bool)
    lows = floor + step * torch.arange(len(counts), dtype=torch.int64)
    widths = 1 + (step - 1) * mixed
    widths[0] = lows[0] + step - _LEAST
    lows[0] = _LEAST
    lows, widths, counts = (
        torch.cat([torch.tensor([first]), rest]) for first, rest in ((0, lows), (1, widths), (zeros, counts))
    )
    held = (counts > 0).nonzero().flatten().flip(0)
    return Ladder(lows=lows[held].int(), widths=widths[held].int(), upto=counts[held].cumsum(0))


def _among(magnitudes: Magnitudes, low: int, end: int, wanted: int) -> tuple[float, int, int]:
    """Return the entry that is the `wanted`-th from the greatest of a range of bits.

    Also as which of those that equal it, and how many these are.
    """
    import torch

    least, beyond = _number(low), _number(end)
    entries = torch.cat([_between(part, least, beyond) for part in magnitudes()])
    value = entries.kthvalue(len(entries) - wanted + 1).values
    return float(value), wanted - int((entries > value).sum()), int((entries == value).sum())


def _between(part: Tensor, least: float, beyond: float) -> Tensor:
    """Return the entries from `least` to below `beyond`, which are few."""
    flat = part.reshape(-1)
    inside = flat.ge(least).logical_and_(flat.lt(beyond))
    return flat[inside.nonzero().flatten()]


def _bits_of(number: Tensor) -> int:
    (bits,) = struct.unpack("<i", struct.pack("<f", float(number)))
    return int(bits)


def _number(bits: int) -> float:
    if bits >= 0x7F800000:
        return math.inf
    (number,) = struct.unpack("<f", struct.pack("<i", bits))
    return float(number)
