"""DARE: drop entries of each task vector at random, rescale the rest, then add.

Yu et al. 2024, https://arxiv.org/abs/2311.03099. Masks come from the run's seed, the source and the tensor's
name alone, so the same recipe always builds the same model, and growing densities nest. An empty mask
gives the base, where dividing by a density of zero would give NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels import loops
from evomerge.merge.kernels.blocks import AtHand, merge_blocks
from evomerge.merge.kernels.dropping import CHANCE_TO_STAY, MASK_STRATEGY, RESCALE, Dropping, draws
from evomerge.merge.kernels.loops import Loop
from evomerge.merge.kernels.weighting import LAMBDA, NORMALIZE, TASK_WEIGHT, add_weighted, adding, divisor
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
        if (merge := self.begin(site, AtHand(operands=operands))) is not None:
            return merge_blocks(merge, base, operands)
        dropped = self._dropping.drop(operands, site)
        return add_weighted(base, dropped, self.weight, scale=self.lambda_, normalize=self.normalize)

    def begin(self, site: Site, whole: Whole) -> MergeBlock | None:
        """Return what merges a tensor's blocks, None if dropping takes all of a task vector."""
        del whole
        if (dropped := self._dropping.begin(site)) is None:
            return None
        return adding(dropped, self.weight, scale=self.lambda_, normalize=self.normalize)

    def loop(self, site: Site, whole: Whole) -> Loop | None:
        """Return the loop that merges a tensor, None where `begin` has nothing or a source is left out."""
        del whole
        if (dropping := self._dropping.loop_numbers(site)) is None:
            return None
        factor = self.lambda_ / divisor(self.weight, normalize=self.normalize)
        return Loop(
            function=loops.dare_linear, numbers=(*loops.float_numbers(self.weight, factor), *dropping)
        )

    @property
    def _dropping(self) -> Dropping:
        return Dropping(
            density=self.density, rescale=self.rescale, compat=self.compat, strategy=self.mask_strategy
        )


METHOD: type[MergeMethod] = DareLinear
