"""Task arithmetic: the base plus a weighted sum of task vectors.

Ilharco et al. 2023, https://arxiv.org/abs/2212.04089, with a weight per source as mergekit has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels import loops
from evomerge.merge.kernels.blocks import each_entry
from evomerge.merge.kernels.loops import Loop
from evomerge.merge.kernels.weighting import LAMBDA, NORMALIZE, TASK_WEIGHT, add_weighted, divisor
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
from evomerge.parameters import PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TaskArithmetic:
    """The base plus weighted task vectors."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = {"lambda": 1.0, "normalize": False}
    cost: ClassVar[Cost] = "elementwise"
    ignores: ClassVar[frozenset[Ignored]] = SUMS

    weight: Annotated[PerSource, TASK_WEIGHT]
    lambda_: Annotated[float, LAMBDA]
    normalize: Annotated[bool, NORMALIZE]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + λ Σ wᵢ δᵢ: `base (*s)` and `operands (n, *s)` to `(*s)`."""
        del site
        assert base is not None  # `base` is declared "needed"
        return add_weighted(base, operands, self.weight, scale=self.lambda_, normalize=self.normalize)

    def begin(self, site: Site, whole: Whole) -> MergeBlock:
        """Return what merges a tensor's blocks: each entry is merged by itself."""
        del whole
        return each_entry(self.merge, site)

    def loop(self, site: Site, whole: Whole) -> Loop:
        """Return the loop that merges a tensor."""
        del site, whole
        factor = self.lambda_ / divisor(self.weight, normalize=self.normalize)
        return Loop(function=loops.task_arithmetic, numbers=loops.float_numbers(self.weight, factor))


METHOD: type[MergeMethod] = TaskArithmetic
