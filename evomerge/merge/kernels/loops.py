"""Merge steps as single loops over tensors as they are stored, for a compiler to make.

Each does to every entry what its method does block by block, the same float32 operations in one order, so
that both give the same bits. `numbers` are the parameters as tensors: a loop that is compiled once takes any.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from evomerge.merge.kernels.trimming import Cut
from evomerge.merge.method import Whole

if TYPE_CHECKING:
    from torch import Tensor

Stored: TypeAlias = "Sequence[Tensor]"
Function: TypeAlias = "Callable[[Tensor | None, Stored, Sequence[Tensor], Tensor], Tensor]"
"""Writes into the last argument what it makes of the base (None: there is none) and the models, all `(n,)`.

Returns whether all of it is finite.
"""


CHUNK = 1 << 16
_MOST = 2**31 - 1


@dataclass(frozen=True, kw_only=True)
class Loop:
    """A function and its numbers."""

    function: Function
    numbers: tuple[Tensor, ...]


def float_numbers(*groups: Sequence[float] | float) -> tuple[Tensor, ...]:
    """Return each group of numbers, or single number, as a float32 tensor."""
    import torch

    return tuple(torch.tensor(group, dtype=torch.float32) for group in groups)


def cut_numbers(whole: Whole, *rows: Sequence[Cut]) -> Iterator[Tensor]:
    """Yield for each row of cuts, of n operands, their values `(n,)` and the places `(n,)` where ties end."""
    import torch

    places = torch.int32 if whole.size <= _MOST else torch.int64
    for cuts, found in zip(rows, whole.ends_of_ties(rows), strict=True):
        yield torch.tensor([cut.value for cut in cuts], dtype=torch.float32)
        yield torch.tensor([min(end, max(whole.size, 1)) for end in found], dtype=places)


def linear(base: Tensor | None, models: Stored, numbers: Sequence[Tensor], into: Tensor) -> Tensor:
    """Σ wᵢ θᵢ; `numbers`: w."""
    del base
    (weight,) = numbers
    return _written(_weighted([model.float() for model in models], weight), into)


def task_arithmetic(base: Tensor | None, models: Stored, numbers: Sequence[Tensor], into: Tensor) -> Tensor:
    """θ₀ + λ Σ wᵢ δᵢ; `numbers`: w, λ."""
    weight, scale = numbers
    start, deltas = _deltas(base, models)
    return _written(_weighted(deltas, weight) * scale + start, into)


def ties(base: Tensor | None, models: Stored, numbers: Sequence[Tensor], into: Tensor) -> Tensor:
    """TIES; `numbers`: w, λ, cuts, where ties end."""
    weight, scale, cuts, ends = numbers
    start, deltas = _deltas(base, models)
    trimmed = [_trimmed(delta, cuts[i], ends[i]) for i, delta in enumerate(deltas)]
    return _written(_elected(trimmed, weight, mean=True) * scale + start, into)


def ties_sum(base: Tensor | None, models: Stored, numbers: Sequence[Tensor], into: Tensor) -> Tensor:
    """TIES without the division by the weights that agree."""
    weight, scale, cuts, ends = numbers
    start, deltas = _deltas(base, models)
    trimmed = [_trimmed(delta, cuts[i], ends[i]) for i, delta in enumerate(deltas)]
    return _written(_elected(trimmed, weight, mean=False) * scale + start, into)


def breadcrumbs(base: Tensor | None, models: Stored, numbers: Sequence[Tensor], into: Tensor) -> Tensor:
    """Breadcrumbs; `numbers`: w, λ, and of the small and of the outliers the cuts and where ties end."""
    weight, scale, cuts, ends, outer_cuts, outer_ends = numbers
    start, deltas = _deltas(base, models)
    crumbs = [
        _trimmed(delta, cuts[i], ends[i]) - _trimmed(delta, outer_cuts[i], outer_ends[i])
        for i, delta in enumerate(deltas)
    ]
    return _written(_weighted(crumbs, weight) * scale + start, into)


def dare_linear(base: Tensor | None, models: Stored, numbers: Sequence[Tensor], into: Tensor) -> Tensor:
    """DARE; `numbers`: w, λ, bounds of the draws, chances, keys."""
    weight, scale, *chances = numbers
    start, deltas = _deltas(base, models)
    return _written(_weighted(_dropped(deltas, chances), weight) * scale + start, into)


def dare_ties(base: Tensor | None, models: Stored, numbers: Sequence[Tensor], into: Tensor) -> Tensor:
    """DARE-TIES without a division; `numbers`: w, λ, bounds of the draws, chances, keys."""
    weight, scale, *chances = numbers
    start, deltas = _deltas(base, models)
    return _written(_elected(_dropped(deltas, chances), weight, mean=False) * scale + start, into)


def count_ties(base: Tensor | None, models: Stored, numbers: Sequence[Tensor], into: Tensor) -> Tensor:
    """Write how many entries of each task vector have a magnitude, by `CHUNK`s: a row for each.

    `numbers` are magnitudes, of all vectors `(n,)` in one after another; so are the rows.
    """
    counts = into.view(len(numbers) * len(models), -1)
    for i, delta in enumerate(_deltas(base, models)[1]):
        chunks = delta.abs().view(-1, CHUNK)
        for k, values in enumerate(numbers):
            counts[k * len(models) + i].copy_((chunks == values[i]).sum(1))
    return (into >= 0).all()


def _deltas(base: Tensor | None, models: Stored) -> tuple[Tensor, list[Tensor]]:
    assert base is not None
    start = base.float()
    return start, [model.float() - start for model in models]


def _weighted(rows: Sequence[Tensor], weight: Tensor) -> Tensor:
    total = rows[0] * weight[0]
    for i in range(1, len(rows)):
        total = total + rows[i] * weight[i]
    return total


def _places(like: Tensor) -> Tensor:
    """Return the entries' places, in half as many bits where these do: twice as many at a time."""
    import torch

    kind = torch.int32 if like.numel() <= _MOST else torch.int64
    return torch.arange(like.numel(), dtype=kind, device=like.device)


def _trimmed(delta: Tensor, cut: Tensor, end: Tensor) -> Tensor:
    """Return what exceeds the cut, and of what equals it all before the place `end`."""
    magnitude = delta.abs()
    stays = (magnitude > cut) | ((magnitude == cut) & (_places(delta) < end))
    return delta.where(stays, 0.0)


def _elected(rows: Sequence[Tensor], weight: Tensor, *, mean: bool) -> Tensor:
    """Return the weighted entries that agree with the sign of their sum, added, over their weights."""
    import torch

    weighted = [row * weight[i] for i, row in enumerate(rows)]
    votes = weighted[0]
    for row in weighted[1:]:
        votes = votes + row
    sign = torch.where(votes >= 0, 1.0, -1.0)
    agree = [row * sign > 0 for row in weighted]
    total = weighted[0].where(agree[0], 0.0)
    for each, row in zip(agree[1:], weighted[1:], strict=True):
        total = total + row.where(each, 0.0)
    if not mean:
        return total
    divisor = torch.where(agree[0], weight[0], 0.0)
    for i in range(1, len(agree)):
        divisor = divisor + torch.where(agree[i], weight[i], 0.0)
    return total / divisor.where(divisor != 0, 1.0)


def _dropped(deltas: Sequence[Tensor], chances: Sequence[Tensor]) -> list[Tensor]:
    """Return what stays of the deltas, each over its chance: what draws below a bound."""
    bounds, share, keys = chances
    return [delta.where(_drawn(keys[i], delta) < bounds[i], 0.0) / share[i] for i, delta in enumerate(deltas)]


def _drawn(key: Tensor, like: Tensor) -> Tensor:
    """Return the draws of `draws.py`, each entry's word made by itself."""
    import torch

    place = _places(like)
    word = (place >> 1).to(torch.int32) ^ key[0]
    word = (word ^ ((word >> 16) & 0xFFFF)) * 0x7FEB352D
    word = word ^ key[1]
    word = (word ^ ((word >> 15) & 0x1FFFF)) * (0x846CA68B - (1 << 32))
    word = word ^ ((word >> 16) & 0xFFFF)
    return torch.where((place & 1) == 0, (word << 16) >> 16, word >> 16).float()


def _written(merged: Tensor, into: Tensor) -> Tensor:
    cast = merged.to(into.dtype)
    into.copy_(cast)
    return cast.isfinite().all()
