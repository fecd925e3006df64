"""Consensus merging: the merged task vector where enough tasks use it, the base elsewhere.

Wang et al. 2024, https://arxiv.org/abs/2405.07813. A task uses an entry where its own change outweighs what
the others do there; entries that one task alone uses (selfish) or none (catastrophic) go.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from evomerge.merge.kernels.tall_masks import consensus_mask, task_masks
from evomerge.merge.method import COMMUTES, BaseUse, Cost, Ignored, MergeMethod, Operand, Site, Stream
from evomerge.merge.methods.ties import Ties
from evomerge.parameters import Choice, Gene, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor

_TIES_DENSITY = 0.2


@dataclass(frozen=True, kw_only=True)
class Consensus:
    """What at least `k` tasks use of the merged task vector."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "official")
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "elementwise"
    ignores: ClassVar[frozenset[Ignored]] = COMMUTES

    tall_lambda: Annotated[
        PerSource,
        Gene(
            low=0.1,
            high=1.0,
            default=0.4,
            meaning="how many times the others' change a task's own must exceed to count as used",
            least=0.0,
        ),
    ]
    k: Annotated[
        float,
        Gene(
            low=0.0,
            high=3.0,
            default=2.0,
            meaning="how many tasks must use an entry (rounded up); 0 keeps all, more than there are nothing",
            searched=False,
        ),
    ]
    lambda_: Annotated[
        float,
        Gene(low=0.1, high=1.0, default=0.5, meaning="multiplies the merged vector", also={"scaling": float}),
    ]
    multi_task_vector: Annotated[
        str,
        Choice(
            options=("sum", "ties"),
            default="sum",
            meaning="the merged vector: the sum of task vectors, or what TIES sums up at a density of 0.2",
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + λ·τ·[Σᵢ mᵢ ≥ k]: `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        tau, masks = self.used(operands, site)
        return base.add(tau * consensus_mask(masks, self.k), alpha=self.lambda_)

    def used(self, operands: Tensor, site: Site) -> tuple[Tensor, Tensor]:
        """Return the merged vector τ `(*s)` and which of its entries each task uses `(n, *s)`."""
        by_ties = self.multi_task_vector == "ties"
        tau = self._ties.merge_vectors(operands, site) if by_ties else operands.sum(0)
        return tau, task_masks(operands, tau, self.tall_lambda)

    def survey_key(self) -> Hashable | None:
        return self._ties.survey_key() if self.multi_task_vector == "ties" else None

    def survey(self, stream: Stream) -> Any:
        """Find what trimming over the whole model needs, which the authors' TIES does."""
        return self._ties.survey(stream)

    @property
    def _ties(self) -> Ties:
        sources = len(self.tall_lambda)
        return Ties(
            weight=(1.0,) * sources,
            density=(_TIES_DENSITY,) * sources,
            lambda_=1.0,
            normalize=True,
            sign_method="total",
            merge_="sum",
            scope="auto",
            compat=self.compat,
        )


METHOD: type[MergeMethod] = Consensus
