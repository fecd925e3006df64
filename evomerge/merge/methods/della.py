"""DELLA: drop smaller entries likelier, then elect one sign per weight and average what agrees.

Deep et al. 2024, https://arxiv.org/abs/2406.11617: drop, elect, fuse. Election and mean are those of TIES
(https://arxiv.org/abs/2306.01708) with weights, as in mergekit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.consensus import SIGN_METHOD, VOTE_WEIGHT
from evomerge.merge.kernels.dropping import RESCALE, draws
from evomerge.merge.kernels.magprune import (
    EPSILON,
    EPSILON_SHARE,
    MEAN_CHANCE,
    RANK_SCOPE,
    half_widths,
    magprune,
)
from evomerge.merge.kernels.weighting import LAMBDA
from evomerge.merge.method import SUMS, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.merge.methods.ties import merge_untrimmed
from evomerge.parameters import Choice, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Della:
    """Task vectors of which mostly small entries were dropped, merged by an elected sign."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "mergekit", "official")
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "ranks"

    weight: Annotated[PerSource, VOTE_WEIGHT]
    density: Annotated[PerSource, MEAN_CHANCE]
    epsilon_share: Annotated[PerSource, EPSILON_SHARE]
    epsilon: Annotated[PerSource, EPSILON]
    rank_scope: Annotated[str, RANK_SCOPE]
    lambda_: Annotated[float, LAMBDA]
    rescale: Annotated[str, RESCALE]
    normalize: Annotated[
        bool,
        Choice(options=(True, False), default=True, meaning="divide by the weights that agree"),
    ]
    sign_method: Annotated[str, SIGN_METHOD]
    compat: str = "evomerge"

    def __post_init__(self) -> None:
        half_widths(self.density, self.epsilon, self.epsilon_share)  # refuses what no chance can be

    @property
    def ignores(self) -> frozenset[Ignored]:
        return SUMS - {"seed"} if draws(self.density) else SUMS

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Merge `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        pruned = magprune(
            operands,
            self.density,
            half_widths(self.density, self.epsilon, self.epsilon_share),
            site,
            rank_scope=self.rank_scope,
            rescale=self.rescale,
            compat=self.compat,
        )
        elected = merge_untrimmed(pruned, self.weight, normalize=self.normalize, sign_method=self.sign_method)
        return base.add(elected, alpha=self.lambda_)


METHOD: type[MergeMethod] = Della
