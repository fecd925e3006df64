"""Taking long tensors a block at a time, where every entry is merged by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_ENTRIES = 1 << 20
"""Entries in a block: what is computed of one takes little memory beside the tensor, and suits the cache."""


def blocks(tensors: Tensor) -> Iterator[Tensor]:
    """Yield views `(n, b)` of contiguous `tensors (n, *s)`, in C order."""
    flat = tensors.view(len(tensors), math.prod(tensors.shape[1:]))
    for start in range(0, flat.shape[1], _ENTRIES):
        yield flat[:, start : start + _ENTRIES]
