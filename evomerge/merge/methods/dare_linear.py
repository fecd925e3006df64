"""DARE: drop entries of each task vector at random, rescale the rest, then add.

Yu et al. 2024, https://arxiv.org/abs/2311.03099. Masks come from the run's seed, the source and the tensor's
name alone, so the same recipe always builds the same model, and growing densities nest. An empty mask
gives the base, where dividing by a density of zero would give NaN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.dropping import drop
from evomerge.merge.kernels.weighting import SMALLEST_SUM, weighted_sum
from evomerge.merge.method import EVERYONES, BaseUse, MergeMethod, Operand, Site
from evomerge.parameters import Choice, Gene, PerSource
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

    weight: Annotated[
        PerSource,
        Gene(
            low=-0.5,
            high=1.5,
            default=1.0,
            meaning="how much of each task vector",
            also={"weights": float},
        ),
    ]
    density: Annotated[
        PerSource,
        Gene(
            low=0.05,
            high=1.0,
            default=1.0,
            meaning="chance of each entry to stay",
            least=0.0,
            also={"drop_rate": lambda rate: 1 - rate},
        ),
    ]
    lambda_: Annotated[
        float, Gene(low=0.1, high=2.0, default=1.0, meaning="multiplies the sum", searched=False)
    ]
    rescale: Annotated[
        str,
        Choice(
            options=("auto", "inverse_density", "l1", "none"),
            default="auto",
            meaning="how the kept entries make up for the dropped; `auto` is `inverse_density`, "
            "and `l1` under mergekit's semantics",
            also={True: "auto", False: "none"},
        ),
    ]
    normalize: Annotated[
        bool, Choice(options=(True, False), default=False, meaning="divide by the sum of weights")
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + λ Σ wᵢ mask(δᵢ): `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        dropped = drop(operands, self.density, site, rescale=self.rescale, compat=self.compat)
        total = sum(self.weight)
        divisor = total if self.normalize and abs(total) >= SMALLEST_SUM else 1.0
        return base.add(weighted_sum(dropped, self.weight), alpha=self.lambda_ / divisor)


METHOD: type[MergeMethod] = DareLinear
