"""DARE-TIES: drop entries at random, then elect signs and average what agrees.

DARE (https://arxiv.org/abs/2311.03099) in the place of TIES' trimming (https://arxiv.org/abs/2306.01708).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.consensus import SIGN_METHOD, VOTE_WEIGHT
from evomerge.merge.kernels.dropping import CHANCE_TO_STAY, RESCALE, drop
from evomerge.merge.kernels.weighting import LAMBDA
from evomerge.merge.method import BaseUse, Cost, MergeMethod, Operand, Site
from evomerge.merge.methods.ties import Ties
from evomerge.parameters import Choice, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DareTies:
    """Randomly dropped task vectors, merged by an elected sign."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "mergekit", "peft")
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "elementwise"

    weight: Annotated[PerSource, VOTE_WEIGHT]
    density: Annotated[PerSource, CHANCE_TO_STAY]
    lambda_: Annotated[float, LAMBDA]
    rescale: Annotated[str, RESCALE]
    normalize: Annotated[
        bool,
        Choice(
            options=(True, False),
            default=False,
            meaning="divide by the weights that agree; PEFT always does, by their number",
        ),
    ]
    sign_method: Annotated[str, SIGN_METHOD]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Merge `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        dropped = drop(operands, self.density, site, rescale=self.rescale, compat=self.compat)
        untrimmed = Ties(
            weight=self.weight,
            density=(1.0,) * len(self.weight),
            lambda_=1.0,
            normalize=self.normalize or self.compat == "peft",
            sign_method=self.sign_method,
            merge_="mean",
            scope="tensor",
            compat=self.compat,
        )
        return base.add(untrimmed.combine(dropped), alpha=self.lambda_)


METHOD: type[MergeMethod] = DareTies
