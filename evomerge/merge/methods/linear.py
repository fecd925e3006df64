"""Linear merge, or model soup: the weighted mean of the models' weights.

Wortsman et al. 2022, https://arxiv.org/abs/2203.05482. A sum of weights too small to divide by is an
error here, not infinity.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels import loops
from evomerge.merge.kernels.blocks import each_entry
from evomerge.merge.kernels.loops import Loop
from evomerge.merge.kernels.shares import SIGNED_SHARE, shares
from evomerge.merge.kernels.weighting import weighted_sum
from evomerge.merge.method import (
    EVERYONES,
    SUMS,
    BaseUse,
    Cost,
    Ignored,
    MergeBlock,
    MergeMethod,
    Operand,
    Site,
    Whole,
)
from evomerge.parameters import Choice, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Linear:
    """The weighted mean of the models."""

    on: ClassVar[Operand] = "weights"
    base: ClassVar[BaseUse] = "unused"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "elementwise"
    average: ClassVar[Mapping[str, Value]] = {"normalize": True}
    ignores: ClassVar[frozenset[Ignored]] = SUMS

    weight: Annotated[PerSource, SIGNED_SHARE]
    normalize: Annotated[
        bool, Choice(options=(True, False), default=True, meaning="divide by the sum of weights")
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return Σ wᵢ θᵢ, over Σ wᵢ if normalised: `operands (n, *s)` to `(*s)`."""
        del base
        weight = shares(self.weight, site.tensor) if self.normalize else self.weight
        return weighted_sum(operands, weight)

    def begin(self, site: Site, whole: Whole) -> MergeBlock:
        """Return what merges a tensor's blocks: each entry is merged by itself."""
        del whole
        return each_entry(self.merge, site)

    def loop(self, site: Site, whole: Whole) -> Loop:
        """Return the loop that merges a tensor."""
        del whole
        weight = shares(self.weight, site.tensor) if self.normalize else self.weight
        return Loop(function=loops.linear, numbers=loops.float_numbers(weight))


METHOD: type[MergeMethod] = Linear
