"""Model Breadcrumbs: add task vectors without their outliers and without their small entries.

Davari & Belilovsky 2023, https://arxiv.org/abs/2312.06795. By default counted per tensor as in mergekit, but
where a tensor is too small to have outliers nothing is removed, while mergekit clears its task vector.
`compat: official` counts per row as the authors' code does.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels import loops
from evomerge.merge.kernels.blocks import AtHand, merge_blocks
from evomerge.merge.kernels.crumbs import (
    CRUMBS,
    CRUMBS_SCOPE,
    OUTLIERS,
    REMOVE_FIRST,
    begin_crumbs,
    crumbs_of,
    cuts_of,
)
from evomerge.merge.kernels.loops import Loop
from evomerge.merge.kernels.weighting import LAMBDA, NORMALIZE, TASK_WEIGHT, add_weighted, adding, divisor
from evomerge.merge.method import (
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
class Breadcrumbs:
    """The base plus the middle of each task vector, weighted."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "mergekit", "official")
    additive: ClassVar[Mapping[str, Value] | None] = {
        "lambda": 1.0, "normalize": False, "density": 1.0, "gamma": 0.0,
    }  # fmt: skip
    cost: ClassVar[Cost] = "ranks"
    ignores: ClassVar[frozenset[Ignored]] = SUMS

    weight: Annotated[PerSource, TASK_WEIGHT]
    density: Annotated[PerSource, CRUMBS]
    gamma: Annotated[PerSource, OUTLIERS]
    lambda_: Annotated[float, LAMBDA]
    normalize: Annotated[bool, NORMALIZE]
    scope: Annotated[str, CRUMBS_SCOPE]
    remove_first: Annotated[bool, REMOVE_FIRST]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + λ Σ wᵢ crumbs(δᵢ): `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        if (merge := self.begin(site, AtHand(operands=operands))) is not None:
            return merge_blocks(merge, base, operands)
        kept = crumbs_of(operands, self.density, self.gamma, scope=self.scope, remove_first=self.remove_first)
        return add_weighted(base, kept, self.weight, scale=self.lambda_, normalize=self.normalize)

    def begin(self, site: Site, whole: Whole) -> MergeBlock | None:
        """Return what merges a tensor's blocks, None if shares are counted in rows."""
        del site
        if self.scope != "tensor":
            return None
        crumbs = begin_crumbs(whole, self.density, self.gamma, remove_first=self.remove_first)
        return adding(crumbs, self.weight, scale=self.lambda_, normalize=self.normalize)

    def loop(self, site: Site, whole: Whole) -> Loop | None:
        """Return the loop that merges a tensor, None if shares are counted in rows."""
        del site
        if self.scope != "tensor":
            return None
        cuts = cuts_of(whole, self.density, self.gamma, remove_first=self.remove_first)
        factor = self.lambda_ / divisor(self.weight, normalize=self.normalize)
        inner, outer = zip(*cuts, strict=True)
        numbers = (*loops.float_numbers(self.weight, factor), *loops.cut_numbers(whole, outer, inner))
        return Loop(function=loops.breadcrumbs, numbers=numbers)


METHOD: type[MergeMethod] = Breadcrumbs
