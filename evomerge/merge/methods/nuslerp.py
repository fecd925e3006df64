"""NuSLERP: along the arc between two models, or between their task vectors, by relative weight.

As mergekit defines it, https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md, on Shoemake's
arc (https://doi.org/10.1145/325334.325242) with angles in float64. A tensor is one vector, or each of its
rows or columns is one; mergekit's `nuslerp_row_wise: true` takes columns, and so does the word here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.angles import inner_products, lengths, rows, whole
from evomerge.merge.kernels.shares import SIGNED_SHARE
from evomerge.merge.method import DRAWS_NOTHING, EVERYONES, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import Choice, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor

_NO_NORM = 1e-7
_NO_WEIGHT = 1e-6
_STRAIGHT = 1e-6
"""Below this sine the arc is the chord (or, between opposites, undefined)."""


@dataclass(frozen=True, kw_only=True)
class Nuslerp:
    """The point on the arc between two models that their weights say; with a base, between task vectors."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "optional"
    sources: ClassVar[tuple[int, int | None]] = (2, 2)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "norms"
    ignores: ClassVar[frozenset[Ignored]] = DRAWS_NOTHING

    weight: Annotated[PerSource, SIGNED_SHARE]
    flatten: Annotated[
        bool,
        Choice(
            options=(True, False),
            default=True,
            meaning="the whole tensor is one vector",
            words=("nuslerp_flatten",),
        ),
    ]
    axis: Annotated[
        str,
        Choice(
            options=("rows", "columns"),
            default="rows",
            meaning="what one vector is, if not the whole tensor; of stacked experts, each one's own "
            "(mergekit's columns run across the experts)",
            also={False: "rows", True: "columns"},
            words=("nuslerp_row_wise",),
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Interpolate `operands (2, *s)` to `(*s)`, and add `base (*s)` if there is one."""
        del site
        axis = self._axis(operands.ndim - 1)
        if axis is None:
            merged = self._between(whole(operands)).reshape(operands.shape[1:])
        else:
            turned = operands.movedim(axis, -1)
            merged = self._between(rows(turned)).reshape(turned.shape[1:]).movedim(-1, axis).contiguous()
        return merged if base is None else base + merged

    def _axis(self, ndim: int) -> int | None:
        """Return the dimension, counted from the last, that a vector runs along; None: all of them."""
        if self.flatten or ndim < 2:
            return None
        if self.axis == "rows":
            return -1
        return -ndim if self.compat == "mergekit" else -2

    def _between(self, vectors: Tensor) -> Tensor:
        """Interpolate `vectors (2, r, d)` to `(r, d)`, each pair by its own angle."""
        share = self._shares(inner_products(vectors)).to(vectors)  # (r, 2)
        return vectors[0] * share[:, :1] + vectors[1] * share[:, 1:]

    def _shares(self, products: Tensor) -> Tensor:
        """Return the coefficients `(r, 2)` of pairs of vectors with these inner products `(r, 2, 2)`."""
        total = sum(self.weight)
        t = self.weight[1] / total if abs(total) >= _NO_WEIGHT else 0.5
        norms = lengths(products)
        cosine = products[:, 0, 1] / norms.clamp(min=_NO_NORM).prod(-1)
        angle = cosine.clamp(-1, 1).acos().unsqueeze(-1)  # (r, 1)
        sine = angle.sin()
        straight = sine.abs() < _STRAIGHT
        if self.compat != "mergekit":  # there, what has no length stands at a right angle
            straight |= (norms < _NO_NORM).any(-1, keepdim=True)
        chord = products.new_tensor([1 - t, t])
        return ((angle * chord).sin() / sine).where(~straight, chord)


METHOD: type[MergeMethod] = Nuslerp
