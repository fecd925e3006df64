"""SCE: select where models differ, calculate their coefficients, erase what opposes the majority.

Wan et al. 2024 (FuseChat), https://arxiv.org/abs/2408.07990. As mergekit reads it, the selection holds for
the task vectors throughout; in the authors' code it only enters the coefficients. mergekit weighs all
models alike where task vectors are as small as language models' usually are; here only their ratio matters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.consensus import agreeing, elect
from evomerge.merge.kernels.trimming import kept_count, trim
from evomerge.merge.kernels.weighting import per_source, weighted_sum
from evomerge.merge.method import COMMUTES, EVERYONES, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import Choice, Gene
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor

_MERGEKIT_SQUARES = 1e-6
"""Below this sum of mean squares mergekit weighs all models alike."""
_BLOCK = 1 << 22


@dataclass(frozen=True, kw_only=True)
class Sce:
    """The base plus task vectors that differ, weighted by their energy, without what opposes the majority."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "ranks"
    ignores: ClassVar[frozenset[Ignored]] = COMMUTES

    select_topk: Annotated[
        float,
        Gene(
            low=0.05,
            high=1.0,
            default=1.0,
            meaning="share of the entries that vary between models to select, most varying first",
            least=0.0,
            most=1.0,
        ),
    ]
    select_applies_to: Annotated[
        str,
        Choice(
            options=("auto", "deltas", "coefficients"),
            default="auto",
            meaning="whether what is not selected stays at the base, or only counts for nothing in the "
            "coefficients; `auto` is `deltas`, and `coefficients` under the authors' semantics",
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Merge `base (*s)` and `operands (n, *s)` to `(*s)`."""
        del site
        assert base is not None  # `base` is declared "needed"
        selected = operands if self.select_topk >= 1 else operands * self._selection(operands)
        share = self._coefficients(selected)
        if share is None:
            return base.clone()
        deltas = operands if self._coefficients_only else selected
        sign = elect(deltas, "total")
        agree = agreeing(deltas, sign.where(sign != 0, 1.0))  # (n, *s)
        divisor = (agree * per_source(share, deltas)).sum(0)
        return base + weighted_sum(deltas * agree, share) / divisor.where(divisor != 0, 1.0)

    @property
    def _coefficients_only(self) -> bool:
        if self.select_applies_to == "auto":
            return self.compat == "official"
        return self.select_applies_to == "coefficients"

    def _selection(self, deltas: Tensor) -> Tensor:
        """Return the mask `(*s)` of the entries of `deltas (n, *s)` that vary most between models."""
        variance = _variance(deltas)
        count = kept_count(self.select_topk, int(variance.count_nonzero()))
        return trim(variance, count) != 0

    def _coefficients(self, deltas: Tensor) -> list[float] | None:
        """Return each model's share of the squares of `deltas (n, *s)`; None if they are all zero."""
        squares = [float(delta.double().norm()) ** 2 for delta in deltas]
        total = sum(squares)
        if total == 0:
            return None
        if self.compat == "mergekit" and total / deltas[0].numel() < _MERGEKIT_SQUARES:
            return [1 / len(squares)] * len(squares)
        return [square / total for square in squares]


def _variance(deltas: Tensor) -> Tensor:
    """Return the population variance over models `(*s)`, in float64, of `deltas (n, *s)`."""
    flat = deltas.reshape(len(deltas), -1)
    variance = flat[0].double()
    for start in range(0, len(variance), _BLOCK):
        block = slice(start, start + _BLOCK)
        variance[block] = flat[:, block].double().var(0, correction=0)
    return variance.reshape(deltas.shape[1:])


METHOD: type[MergeMethod] = Sce
