"""Merging a tensor block by block: read, computed with and written while it is in the cache.

A merge of whole tensors moves each entry to memory and back at every step; this moves what is stored, once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from torch import Tensor

from evomerge.checkpoints.dtypes import all_finite
from evomerge.merge.compiling import Loops
from evomerge.merge.kernels.blocks import block_size
from evomerge.merge.kernels.ladder import Ladder, Magnitudes, count_magnitudes
from evomerge.merge.kernels.loops import CHUNK
from evomerge.merge.kernels.selecting import SAMPLE, cut_once
from evomerge.merge.kernels.trimming import EVERYTHING, NOTHING, Cut, end_of_ties
from evomerge.merge.method import MergeBlock


@dataclass(frozen=True, kw_only=True)
class Stored:
    """One operand as it is stored, flat; `delta` tells whether it is a task vector already."""

    tensor: Tensor
    delta: bool = False


@dataclass(frozen=True, kw_only=True)
class Operands:
    """What a tensor is merged from, all of one size and on one device."""

    base: Tensor | None
    stored: tuple[Stored, ...]

    @property
    def size(self) -> int:
        """How many entries the tensor has."""
        return self.stored[0].tensor.numel()

    def part(self, start: int, stop: int | None = None) -> Operands:
        """Return the entries from `start` on, up to `stop`."""
        base = None if self.base is None else self.base[start:stop]
        return Operands(
            base=base, stored=tuple(replace(each, tensor=each.tensor[start:stop]) for each in self.stored)
        )

    def some(self, count: int) -> Operands:
        """Return about so many entries, at equal distances."""
        step = max(1, self.size // count)
        base = None if self.base is None else self.base[::step]
        return Operands(
            base=base, stored=tuple(replace(each, tensor=each.tensor[::step]) for each in self.stored)
        )

    @property
    def device(self) -> torch.device:
        """Where they are."""
        return self.stored[0].tensor.device

    def blocks(self, *, deltas: bool) -> Iterator[tuple[Tensor | None, Tensor]]:
        """Yield the base `(b)` and the operands `(n, b)` of each block, in float32, in the same buffers."""
        length = max(1, min(block_size(self.device), self.size))
        rooms = torch.empty((1 + len(self.stored), length), dtype=torch.float32, device=self.device)
        for start in range(0, self.size, length):
            room = rooms[:, : min(length, self.size - start)]
            base = None if self.base is None else _widened(self.base, start, room[0])
            for each, into in zip(self.stored, room[1:], strict=True):
                _fill(each, start, into, base if deltas else None)
            yield base, room[1:]

    def magnitudes(self, source: int, *, deltas: bool) -> Iterator[Tensor]:
        """Yield the magnitudes of one operand's blocks."""
        alone = Operands(base=self.base, stored=(self.stored[source],))
        return (block[0].abs() for _, block in alone.blocks(deltas=deltas))


def _widened(stored: Tensor, start: int, room: Tensor) -> Tensor:
    """Return the entries from `start` on in float32; a view of them if that is what they are."""
    part = stored[start : start + len(room)]
    return part if part.dtype == torch.float32 else room.copy_(part)


def _fill(stored: Stored, start: int, into: Tensor, base: Tensor | None) -> None:
    part = stored.tensor[start : start + len(into)]
    if base is None or stored.delta:
        into.copy_(part)
    elif part.dtype == torch.float32:
        torch.sub(part, base, out=into)
    else:
        into.copy_(part).sub_(base)


def merge_stored(merge: MergeBlock, operands: Operands, into: Tensor, *, deltas: bool) -> bool:
    """Write what `merge` makes of all blocks into `into` (contiguous), cast; return whether all is finite."""
    flat = into.view(-1)
    extremes: list[Tensor] = []
    start = 0
    for base, block in operands.blocks(deltas=deltas):
        part = flat[start : start + block.shape[1]]
        part.copy_(merge(base, block, start))
        extremes += torch.aminmax(part if part.itemsize > 1 else part.float())
        start += len(part)
    return not extremes or all_finite(torch.stack(extremes))


class Orders:
    """The order statistics of task vectors that were asked for: they hang on the sources only."""

    def __init__(self) -> None:
        self._ladders: dict[Hashable, Ladder] = {}

    def ladder(self, key: Hashable, magnitudes: Magnitudes) -> Ladder:
        """Return the ladder of a vector that `key` names, counted the first time."""
        if key not in self._ladders:
            self._ladders[key] = count_magnitudes(magnitudes)
        return self._ladders[key]


@dataclass(frozen=True, kw_only=True)
class Known:
    """What a method may learn of stored operands as a whole: `names` tell each apart from all others.

    Without `orders` nothing is kept of it for another time.
    """

    operands: Operands
    names: tuple[Hashable, ...]
    orders: Orders | None
    deltas: bool
    loops: Loops | None = None

    @property
    def size(self) -> int:
        """How many entries the tensor has."""
        return self.operands.size

    def cut(self, source: int, count: int, *, every_tie: bool = False) -> Cut:
        """Return where `source` is cut so that its `count` largest entries stay."""
        if count >= self.size:
            return EVERYTHING
        if count <= 0:
            return NOTHING
        magnitudes: Callable[[], Iterator[Tensor]] = partial(
            self.operands.magnitudes, source, deltas=self.deltas
        )
        if self.orders is not None:
            ladder = self.orders.ladder(self.names[source], magnitudes)
            return ladder.cut(count, magnitudes, every_tie=every_tie)
        some = self.operands.some(SAMPLE).magnitudes(source, deltas=self.deltas)
        sample = torch.cat([part.reshape(-1) for part in some])
        found = cut_once(self.size, count, magnitudes, sample, every_tie=every_tie)
        return found or count_magnitudes(magnitudes).cut(count, magnitudes, every_tie=every_tie)

    def ends_of_ties(self, rows: Sequence[Sequence[Cut]]) -> list[list[int]]:
        """Return the places before which what equals the cuts stays, of all operands' in each row."""
        counts = self._tie_counts(rows) if any(cut.ties for cuts in rows for cut in cuts) else None
        return [
            [self._end(i, cut, None if counts is None else counts[k, i]) for i, cut in enumerate(cuts)]
            for k, cuts in enumerate(rows)
        ]

    def _tie_counts(self, rows: Sequence[Sequence[Cut]]) -> Tensor | None:
        """Return how many entries equal each cut, by chunks, all counted in one pass; None without loops."""
        base, models = self.operands.base, [each.tensor for each in self.operands.stored]
        if base is None or self.loops is None or not self.loops.suits(base):
            return None
        wanted = [[cut.value if cut.ties else math.nan for cut in cuts] for cuts in rows]
        return self.loops.count_ties(base, models, wanted)

    def _end(self, source: int, cut: Cut, counts: Tensor | None) -> int:
        """Return where the ties of one cut end; counts by chunks tell in which to look."""
        start, stop, left = 0, None, cut.ties
        if cut.ties and counts is not None:
            upto = counts.cumsum(0)
            chunk = int(torch.searchsorted(upto, cut.ties))
            start, left = chunk * CHUNK, cut.ties - (int(upto[chunk - 1]) if chunk else 0)
            stop = start + CHUNK if chunk < len(upto) else None
        part = self.operands.part(start, stop)
        return start + end_of_ties(part.magnitudes(source, deltas=self.deltas), replace(cut, ties=left))
