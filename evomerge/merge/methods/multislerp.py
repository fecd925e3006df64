"""Multi-SLERP: the mean direction of any number of models, at their mean length.

mergekit's, https://github.com/arcee-ai/mergekit/blob/main/docs/merge_methods.md, which describes a step in
the tangent space at the mean direction. The weighted tangent vectors there always sum to zero, so what it
computes is this formula.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.errors import MergeError
from evomerge.merge.kernels.shares import SIGNED_SHARE, shares
from evomerge.merge.kernels.weighting import weighted_sum
from evomerge.merge.method import DRAWS_NOTHING, EVERYONES, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import Choice, Gene, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Multislerp:
    """The weighted mean direction and length of the models; with a base, of the task vectors."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "optional"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "norms"
    ignores: ClassVar[frozenset[Ignored]] = DRAWS_NOTHING

    weight: Annotated[PerSource, SIGNED_SHARE]
    normalize: Annotated[
        bool,
        Choice(
            options=(True, False),
            default=True,
            meaning="divide by the sum of weights",
            words=("normalize_weights",),
        ),
    ]
    eps: Annotated[
        float,
        Gene(
            low=1e-12,
            high=1e-6,
            default=1e-8,
            meaning="added to lengths; a mean direction shorter than this is none",
            searched=False,
            least=1e-12,
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Merge `operands (n, *s)` to `(*s)`, and add `base (*s)` if there is one."""
        merged = operands[0] if len(operands) == 1 else self._mean(operands, site)
        return merged if base is None else base + merged

    def _mean(self, operands: Tensor, site: Site) -> Tensor:
        weight = shares(self.weight, site.tensor) if self.normalize else self.weight
        lengths = [float(x.double().norm()) for x in operands]  # |xᵢ|
        inverse = [w / (length + self.eps) for w, length in zip(weight, lengths, strict=True)]
        mean = weighted_sum([operands[0].double(), *operands[1:]], inverse)  # s = Σ wᵢ xᵢ / |xᵢ|
        size = float(mean.norm())
        if size >= self.eps:
            length = sum(w * length for w, length in zip(weight, lengths, strict=True))
            return (mean * (length / size)).to(operands)  # s / |s| · Σ wᵢ |xᵢ|
        if len(operands) == 2 or not any(w * length for w, length in zip(weight, lengths, strict=True)):
            return weighted_sum(operands, weight)
        raise MergeError(
            f"the directions of `{site.tensor}` cancel out, so they have no mean; "
            "change `weight`, or merge by `linear`"
        )


METHOD: type[MergeMethod] = Multislerp
