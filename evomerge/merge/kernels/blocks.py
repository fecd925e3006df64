"""Taking long tensors a block at a time, where every entry is merged by itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.merge.kernels.trimming import Cut, cut_of, end_of_ties
from evomerge.merge.method import MergeBlock, Site, Vectors

if TYPE_CHECKING:
    from torch import Tensor

_ENTRIES = 1 << 16
"""Entries in a thread's block: some vectors of so many stay in its cache. Even, as draws come in pairs."""
_ON_DEVICE = 1 << 24
"""Entries in a block on a GPU, which takes longer to be told what to do than to do it."""


@dataclass(frozen=True, kw_only=True)
class AtHand:
    """What there is to know of operands `(n, *s)` that are all there."""

    operands: Tensor

    def cut(self, source: int, count: int, *, every_tie: bool = False) -> Cut:
        """Return where `source` is cut so that its `count` largest entries stay."""
        return cut_of(self.operands[source], count, every_tie=every_tie)

    def ends_of_ties(self, rows: Sequence[Sequence[Cut]]) -> list[list[int]]:
        """Return the places before which what equals the cuts stays, of all operands' in each row."""
        return [[end_of_ties([self.operands[i].abs()], cut) for i, cut in enumerate(cuts)] for cuts in rows]

    @property
    def size(self) -> int:
        """How many entries the tensor has."""
        return math.prod(self.operands.shape[1:])


def merge_vectors(vectors: Vectors, deltas: Tensor) -> Tensor:
    """Return what `vectors` makes of all blocks of `deltas (n, *s)`: `(*s)`."""

    def merge_block(base: Tensor | None, part: Tensor, start: int) -> Tensor:
        del base
        return vectors(part, start)

    return merge_blocks(merge_block, None, deltas)


def block_size(device: object) -> int:
    """Return how many entries are merged at a time on a torch device, by all threads together."""
    import torch

    if torch.device(str(device)).type != "cpu":
        return _ON_DEVICE
    return _ENTRIES * torch.get_num_threads()


def blocks(tensors: Tensor) -> Iterator[Tensor]:
    """Yield views `(n, b)` of contiguous `tensors (n, *s)`, in C order."""
    flat = tensors.view(len(tensors), math.prod(tensors.shape[1:]))
    length = block_size(tensors.device)
    for start in range(0, flat.shape[1], length):
        yield flat[:, start : start + length]


def each_entry(merge: Callable[[Tensor | None, Tensor, Site], Tensor], site: Site) -> MergeBlock:
    """Return what merges blocks by a method's `merge` that takes every entry by itself."""

    def merge_block(base: Tensor | None, operands: Tensor, start: int) -> Tensor:
        del start
        return merge(base, operands, site)

    return merge_block


def merge_blocks(merge: MergeBlock, base: Tensor | None, operands: Tensor) -> Tensor:
    """Return what `merge` makes of all blocks: `base (*s)` and `operands (n, *s)` to `(*s)`."""
    merged = operands.new_empty((1, *operands.shape[1:]))
    start = 0
    bases = blocks(base.unsqueeze(0).contiguous()) if base is not None else None
    for part, into in zip(blocks(operands.contiguous()), blocks(merged), strict=True):
        into[0] = merge(next(bases)[0] if bases is not None else None, part, start)
        start += part.shape[1]
    return merged[0]
