"""RAM: average each entry over the models that changed it, and only over those.

Yuan et al. 2026, https://arxiv.org/abs/2601.13572, for models trained by reinforcement learning, whose task
vectors are sparse. Without the rescaling of entries that one model alone changed (the paper's RAM+).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.method import COMMUTES, EVERYONES, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import Gene
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Ram:
    """The base plus the mean of those task vectors that are not negligible, entry by entry."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "elementwise"
    ignores: ClassVar[frozenset[Ignored]] = COMMUTES

    negligible: Annotated[
        float,
        Gene(
            low=1e-6,
            high=1e-3,
            default=1e-5,
            meaning="changes up to this size are none",
            searched=False,
            least=0.0,
            also={"epsilon": float, "threshold": float},
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + Σ active δᵢ / max(1, how many): `base (*s)` and `operands (n, *s)` to `(*s)`."""
        del site
        assert base is not None  # `base` is declared "needed"
        active = operands.abs() > self.negligible  # (n, *s)
        return base + (operands * active).sum(0) / active.sum(0).clamp(min=1)


METHOD: type[MergeMethod] = Ram
