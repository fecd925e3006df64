"""Karcher mean: the point on the sphere nearest to all models' directions, at their mean length.

Karcher 1977, https://doi.org/10.1002/cpa.3160300502, on each tensor as one vector, as in mergekit but in
float64. The mean lies in the span of the models, so the iteration needs their inner products only.
A model opposite to where it stands pulls nowhere, and one without length only shortens the mean.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.angles import inner_products, lengths, whole
from evomerge.merge.kernels.shares import SHARE, shares
from evomerge.merge.kernels.weighting import SMALLEST_SUM, weighted_sum
from evomerge.merge.method import DRAWS_NOTHING, EVERYONES, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import Gene, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor

_ALPHA = replace(SHARE, also={**SHARE.also, "alphas": float})


@dataclass(frozen=True, kw_only=True)
class Karcher:
    """The weighted mean of the models' directions on the sphere, at their weighted mean length."""

    on: ClassVar[Operand] = "weights"
    base: ClassVar[BaseUse] = "unused"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "norms"
    ignores: ClassVar[frozenset[Ignored]] = DRAWS_NOTHING

    weight: Annotated[PerSource, _ALPHA]
    max_iter: Annotated[
        float,
        Gene(
            low=10, high=100, default=50, meaning="the most steps towards the mean", searched=False, least=0
        ),
    ]
    tol: Annotated[
        float,
        Gene(
            low=1e-9,
            high=1e-3,
            default=1e-5,
            meaning="lengths, angles and steps below this count as none",
            searched=False,
            least=1e-12,
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Merge `operands (n, *s)` to `(*s)`: the mean direction times Σ αᵢ |xᵢ|."""
        del base
        alpha = shares(self.weight, site.tensor)
        if len(operands) == 1:
            return operands[0]
        products = inner_products(whole(operands))[0].cpu()  # (n, n): small, and branched on
        norms = lengths(products)  # (n,)
        share = products.new_tensor(alpha)
        valid = norms > self.tol
        pull = share * valid
        if float(pull.sum()) < SMALLEST_SUM:
            return operands[0] * 0.0
        inverse = (1 / norms).where(valid, 0.0)
        cosines = products * inverse * inverse.unsqueeze(-1)
        place = self._place(cosines, pull / pull.sum(), first=valid.tolist().index(True))
        return weighted_sum(operands, (place * inverse * (share @ norms)).tolist())

    def _place(self, cosines: Tensor, alpha: Tensor, *, first: int) -> Tensor:
        """Return the mean as coefficients `(n,)` of unit vectors uᵢ with these `cosines (n, n)`."""
        size = _size(alpha, cosines)
        if size >= self.tol:
            place = alpha / size
        else:
            place = alpha.new_zeros(alpha.shape)
            place[first] = 1.0
        for _ in range(int(self.max_iter)):
            cosine = (cosines @ place).clamp(-1, 1)  # u·uᵢ
            angle = cosine.acos()  # φᵢ
            pulls = (angle >= self.tol) & (angle <= math.pi - self.tol)
            pull = (alpha * angle / angle.sin()).where(pulls, 0.0)
            step = pull - (pull @ cosine) * place  # T = Σ αᵢ φᵢ / sin φᵢ (uᵢ − (u·uᵢ) u)
            size = _size(step, cosines)
            if size < self.tol:
                break
            place = math.cos(size) * place + math.sin(size) / size * step
            place = place / _size(place, cosines)
        return place


def _size(coefficients: Tensor, cosines: Tensor) -> float:
    """Return the norm of Σ cᵢ uᵢ."""
    return math.sqrt(max(0.0, float(coefficients @ cosines @ coefficients)))


METHOD: type[MergeMethod] = Karcher
