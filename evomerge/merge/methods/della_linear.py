"""DELLA without election: drop smaller entries of each task vector likelier, rescale the rest, then add.

Deep et al. 2024, https://arxiv.org/abs/2406.11617. What stays is divided by its own chance to stay, so the
merge is right on average; `compat: mergekit` restores each tensor's sum of magnitudes instead.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.dropping import RESCALE, draws
from evomerge.merge.kernels.magprune import (
    EPSILON,
    EPSILON_SHARE,
    MEAN_CHANCE,
    RANK_SCOPE,
    half_widths,
    magprune,
)
from evomerge.merge.kernels.weighting import LAMBDA, NORMALIZE, TASK_WEIGHT, add_weighted
from evomerge.merge.method import SUMS, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DellaLinear:
    """The base plus weighted task vectors of which mostly small entries were dropped."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "mergekit", "official")
    additive: ClassVar[Mapping[str, Value] | None] = {"lambda": 1.0, "normalize": False, "density": 1.0}
    cost: ClassVar[Cost] = "ranks"

    weight: Annotated[PerSource, TASK_WEIGHT]
    density: Annotated[PerSource, MEAN_CHANCE]
    epsilon_share: Annotated[PerSource, EPSILON_SHARE]
    epsilon: Annotated[PerSource, EPSILON]
    rank_scope: Annotated[str, RANK_SCOPE]
    lambda_: Annotated[float, LAMBDA]
    rescale: Annotated[str, RESCALE]
    normalize: Annotated[bool, NORMALIZE]
    compat: str = "evomerge"

    def __post_init__(self) -> None:
        half_widths(self.density, self.epsilon, self.epsilon_share)  # refuses what no chance can be

    @property
    def ignores(self) -> frozenset[Ignored]:
        return SUMS - {"seed"} if draws(self.density) else SUMS

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + λ Σ wᵢ prune(δᵢ): `base (*s)` and `operands (n, *s)` to `(*s)`."""
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
        return add_weighted(base, pruned, self.weight, scale=self.lambda_, normalize=self.normalize)


METHOD: type[MergeMethod] = DellaLinear
