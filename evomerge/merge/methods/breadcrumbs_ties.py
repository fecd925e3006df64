"""Breadcrumbs with TIES: task vectors without outliers and small entries, merged by an elected sign.

Breadcrumbs' mask (https://arxiv.org/abs/2312.06795) in the place of TIES' trimming
(https://arxiv.org/abs/2306.01708), as mergekit combines them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.consensus import SIGN_METHOD, VOTE_WEIGHT
from evomerge.merge.kernels.crumbs import CRUMBS, CRUMBS_SCOPE, OUTLIERS, REMOVE_FIRST, crumbs_of
from evomerge.merge.kernels.weighting import LAMBDA
from evomerge.merge.method import SUMS, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.merge.methods.ties import merge_untrimmed
from evomerge.parameters import Choice, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class BreadcrumbsTies:
    """The middle of each task vector, merged by an elected sign."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "mergekit")
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "ranks"
    ignores: ClassVar[frozenset[Ignored]] = SUMS

    weight: Annotated[PerSource, VOTE_WEIGHT]
    density: Annotated[PerSource, CRUMBS]
    gamma: Annotated[PerSource, OUTLIERS]
    lambda_: Annotated[float, LAMBDA]
    normalize: Annotated[
        bool,
        Choice(options=(True, False), default=False, meaning="divide by the weights that agree"),
    ]
    sign_method: Annotated[str, SIGN_METHOD]
    scope: Annotated[str, CRUMBS_SCOPE]
    remove_first: Annotated[bool, REMOVE_FIRST]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Merge `base (*s)` and `operands (n, *s)` to `(*s)`."""
        del site
        assert base is not None  # `base` is declared "needed"
        kept = crumbs_of(operands, self.density, self.gamma, scope=self.scope, remove_first=self.remove_first)
        elected = merge_untrimmed(kept, self.weight, normalize=self.normalize, sign_method=self.sign_method)
        return base.add(elected, alpha=self.lambda_)


METHOD: type[MergeMethod] = BreadcrumbsTies
