"""DARE: drop entries of each task vector at random, rescale the rest, then add.

Yu et al. 2024, https://arxiv.org/abs/2311.03099. Masks come from the run's seed, the source and the tensor's
name alone, so the same recipe always builds the same model, and growing densities nest. An empty mask
gives the base, where dividing by a density of zero would give NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.dropping import CHANCE_TO_STAY, MASK_STRATEGY, RESCALE, draws, drop
from evomerge.merge.kernels.weighting import LAMBDA, NORMALIZE, TASK_WEIGHT, add_weighted
from evomerge.merge.method import EVERYONES, SUMS, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DareLinear:
    """The base plus weighted task vectors of which a random part was dropped."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = {"lambda": 1.0, "normalize": False, "density": 1.0}
    cost: ClassVar[Cost] = "elementwise"

    weight: Annotated[PerSource, TASK_WEIGHT]
    density: Annotated[PerSource, CHANCE_TO_STAY]
    lambda_: Annotated[float, LAMBDA]
    rescale: Annotated[str, RESCALE]
    mask_strategy: Annotated[str, MASK_STRATEGY]
    normalize: Annotated[bool, NORMALIZE]
    compat: str = "evomerge"

    @property
    def ignores(self) -> frozenset[Ignored]:
        return SUMS - {"seed"} if draws(self.density, self.mask_strategy) else SUMS

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + λ Σ wᵢ mask(δᵢ): `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        dropped = drop(
            operands,
            self.density,
            site,
            rescale=self.rescale,
            compat=self.compat,
            strategy=self.mask_strategy,
        )
        return add_weighted(base, dropped, self.weight, scale=self.lambda_, normalize=self.normalize)


METHOD: type[MergeMethod] = DareLinear
