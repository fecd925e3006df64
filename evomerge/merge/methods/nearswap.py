"""NearSwap: take over the entries that are near the base's, and of the others a step of the same size.

Alchemonaut 2024, https://huggingface.co/alchemonaut/QuartetAnemoi-70B-t0.0001, as mergekit has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.method import DRAWS_NOTHING, EVERYONES, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import Gene
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor

_NO_CHANGE = 1e-6


@dataclass(frozen=True, kw_only=True)
class Nearswap:
    """The base plus a task vector that changes each entry by at most `limit`."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, 1)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "elementwise"
    ignores: ClassVar[frozenset[Ignored]] = DRAWS_NOTHING

    limit: Annotated[
        float,
        Gene(
            low=1e-4,
            high=1e-2,
            default=1e-3,
            meaning="the most an entry changes, on the scale of the task vector; others call it t",
            least=0.0,
            also={"t": float},
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + w δ with w = t / |δ|, at most 1: `base (*s)` and `operands (1, *s)` to `(*s)`."""
        del site
        assert base is not None  # `base` is declared "needed"
        delta = operands[0]
        weight = (self.limit / delta.abs().clamp(min=_NO_CHANGE)).clamp(max=1)
        return base + weight * delta


METHOD: type[MergeMethod] = Nearswap
