"""Arcee Fusion: take from one model the entries whose change is important, leave the rest at the base.

mergekit's, https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md. An entry's importance is
its change times the divergence of its row, read as a distribution by softmax. Quantiles are exact order
statistics, where mergekit draws a sample of large tensors at random.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from evomerge.merge.kernels.ranking import rows_of
from evomerge.merge.method import DRAWS_NOTHING, EVERYONES, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor

_EPS = 1e-8
_BLOCK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class ArceeFusion:
    """The base with the one source's entries where their importance stands out."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, 1)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "ranks"
    ignores: ClassVar[frozenset[Ignored]] = DRAWS_NOTHING

    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + δ where |δ| K is at least median + 1.5 IQR: `operands (1, *s)` to `(*s)`."""
        del site
        assert base is not None  # `base` is declared "needed"
        if not base.numel():
            return base.clone()
        before, change = rows_of(base), rows_of(operands[0])  # (r, d)
        importance = change.abs() * _divergence(before, change).unsqueeze(-1)
        return base + (change * (importance >= _threshold(importance))).reshape(base.shape)


def _divergence(before: Tensor, change: Tensor) -> Tensor:
    """Return K = Σ p ln(p / q), `(r,)` in float64, for rows `(r, d)`; p is after the change, q before."""
    found = before.new_empty(len(before)).double()
    height = max(1, _BLOCK // before.shape[-1])
    for start in range(0, len(found), height):
        block = slice(start, start + height)
        q = before[block].double().softmax(-1) + _EPS
        p = (before[block].double() + change[block]).softmax(-1) + _EPS
        found[block] = (p * (p / q).log()).sum(-1)
    return found.clamp(min=0)  # less is rounding


def _threshold(importance: Tensor) -> float:
    """Return the median plus one and a half times the interquartile range, of lower order statistics."""
    flat = importance.flatten()
    last = flat.numel() - 1
    low, middle, high = (float(flat.kthvalue(last * quarter // 4 + 1).values) for quarter in (1, 2, 3))
    return middle + 1.5 * (high - low)


METHOD: type[MergeMethod] = ArceeFusion
