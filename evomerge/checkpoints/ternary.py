"""Ternary tensors: a scale, and which entries have it with which sign, in two bits an entry or fewer.

What ComPEFT (https://arxiv.org/abs/2311.13171) makes of a task vector. In memory it is two bitmaps, whose dot
product is a count of bits; in a file the gaps between the entries may be Golomb-Rice coded instead, within
a few percent of the entropy up to a density of a half.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge.errors import MergeError

Bytes: TypeAlias = NDArray[np.uint8]
Bits: TypeAlias = NDArray[np.bool_]

CODINGS = ("golomb", "bitmap")
_GOLDEN = (math.sqrt(5) - 1) / 2
_ONES: Bytes = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1).sum(1, dtype=np.uint8)
"""How many bits of each byte are set."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Ternary:
    """A tensor of −scale, 0 and scale. Entry i (C order) is bit i % 8 of byte i // 8 of both bitmaps."""

    shape: tuple[int, ...]
    scale: float
    plus: Bytes
    minus: Bytes

    @property
    def kept(self) -> int:
        """How many entries are not zero."""
        return _ones(self.plus) + _ones(self.minus)

    def tensor(self) -> Tensor:
        """Return the tensor in float32."""
        size = math.prod(self.shape)
        values = np.zeros(size, dtype=np.float32)
        values[_unpacked(self.plus, size)] = self.scale
        values[_unpacked(self.minus, size)] = -self.scale
        return torch.from_numpy(values).reshape(self.shape)

    def dot(self, other: Ternary) -> float:
        """Return the inner product: both scales times how many more signs agree than disagree."""
        if self.shape != other.shape:
            raise MergeError(f"no inner product of the shapes {list(self.shape)} and {list(other.shape)}")
        agree = _ones(self.plus & other.plus) + _ones(self.minus & other.minus)
        disagree = _ones(self.plus & other.minus) + _ones(self.minus & other.plus)
        return self.scale * other.scale * (agree - disagree)


def pack(tensor: Tensor) -> Ternary:
    """Return a tensor of −s, 0 and s, packed. Raises `MergeError` if it has other values."""
    values = tensor.detach().float().cpu().contiguous().flatten().numpy()
    scale = float(np.abs(values).max(initial=0.0))
    plus, minus = (values == scale) & (values != 0), (values == -scale) & (values != 0)
    if not math.isfinite(scale) or np.count_nonzero(values) != np.count_nonzero(plus | minus):
        raise MergeError(
            "a ternary tensor has one magnitude besides 0, but this one has more; compress it first"
        )
    return Ternary(shape=tuple(tensor.shape), scale=scale, plus=_packed(plus), minus=_packed(minus))


def encoded(ternary: Ternary, coding: str) -> dict[str, Bytes]:
    """Return the planes that hold the entries in a file, by name."""
    if coding == "bitmap":
        return {"plus": ternary.plus, "minus": ternary.minus}
    size = math.prod(ternary.shape)
    minus = _unpacked(ternary.minus, size)
    places = np.flatnonzero(_unpacked(ternary.plus | ternary.minus, size))
    gaps = np.diff(places, prepend=-1) - 1
    width = rest_width(len(places), size)
    ends = np.cumsum((gaps >> width) + 1)
    unary = np.zeros(int(ends[-1]) if len(ends) else 0, dtype=np.bool_)
    unary[ends - 1] = True
    rests = (gaps[:, None] >> np.arange(width)) & 1 == 1
    return {"gaps": _packed(unary), "rests": _packed(rests.ravel()), "signs": _packed(minus[places])}


def decoded(shape: tuple[int, ...], scale: float, kept: int, planes: Mapping[str, Bytes]) -> Ternary:
    """Return what was encoded. Raises `ValueError` if the planes are not those of `kept` entries."""
    size = math.prod(shape)
    if "plus" in planes:
        plus, minus = planes["plus"], planes["minus"]
    else:
        plus, minus = _ungolombed(size, kept, planes)
    found = Ternary(shape=shape, scale=scale, plus=plus, minus=minus)
    bytes_ = -(-size // 8)
    if len(plus) != bytes_ or len(minus) != bytes_ or bool((plus & minus).any()) or found.kept != kept:
        raise ValueError(f"its bits are not {kept} signs among {size} entries")
    return found


def rest_width(kept: int, size: int) -> int:
    """Return how many low bits of a gap are written as they are, the rest in unary.

    The best for gaps that are geometrically distributed: Kiely 2004, "Selecting the Golomb parameter in
    Rice coding", https://ipnpr.jpl.nasa.gov/progress_report/42-159/159E.pdf.
    """
    if not 0 < kept < size:
        return 0
    ratio = math.log(_GOLDEN) / math.log1p(-kept / size)
    return max(0, 1 + math.floor(math.log2(ratio)))


def _ungolombed(size: int, kept: int, planes: Mapping[str, Bytes]) -> tuple[Bytes, Bytes]:
    width = rest_width(kept, size)
    ends = np.flatnonzero(np.unpackbits(planes["gaps"], bitorder="little"))
    rests_and_signs = (len(planes["rests"]), len(planes["signs"]))
    if len(ends) != kept or rests_and_signs != (-(-kept * width // 8), -(-kept // 8)):
        raise ValueError(f"its gaps are not those of {kept} entries")
    high = np.diff(ends, prepend=-1) - 1
    rests = _unpacked(planes["rests"], kept * width).reshape(kept, width)
    gaps = (high << width) + rests @ (1 << np.arange(width, dtype=np.int64))
    places = np.cumsum(gaps + 1) - 1
    if kept and places[-1] >= size:
        raise ValueError(f"its gaps lead beyond {size} entries")
    negative = _unpacked(planes["signs"], kept)
    plus, minus = np.zeros(size, dtype=np.bool_), np.zeros(size, dtype=np.bool_)
    plus[places[~negative]] = True
    minus[places[negative]] = True
    return _packed(plus), _packed(minus)


def _packed(bits: Bits) -> Bytes:
    return np.packbits(bits, bitorder="little")


def _unpacked(packed: Bytes, count: int) -> Bits:
    return np.unpackbits(packed, count=count, bitorder="little").view(np.bool_)


def _ones(packed: Bytes) -> int:
    return int(_ONES[packed].sum(dtype=np.int64))
