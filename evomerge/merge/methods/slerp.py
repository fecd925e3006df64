"""SLERP: along the arc between two models instead of the chord.

Shoemake 1985, https://doi.org/10.1145/325334.325242, on each tensor as one vector; angles in float64.
Like mergekit, nearly parallel tensors (|cos| > 0.9995) fall back to the chord.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.method import DRAWS_NOTHING, EVERYONES, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import Gene
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor

_PARALLEL = 0.9995
_ZERO_NORM = 1e-8


@dataclass(frozen=True, kw_only=True)
class Slerp:
    """The point at `t` on the arc from the base (t = 0) to the one source (t = 1)."""

    on: ClassVar[Operand] = "weights"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, 1)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "norms"
    ignores: ClassVar[frozenset[Ignored]] = DRAWS_NOTHING

    t: Annotated[
        float, Gene(low=0.0, high=1.0, default=0.5, meaning="0 is the base, 1 is the source", grain=1e-6)
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Interpolate `base (*s)` and `operands (1, *s)` to `(*s)`."""
        del site
        assert base is not None  # `base` is declared "needed"
        here, there = self._shares(base, operands[0])
        return (base * here).add_(operands[0], alpha=there)

    def _shares(self, start: Tensor, end: Tensor) -> tuple[float, float]:
        """Return the coefficients of the two unnormalised tensors."""
        a, b = start.double().flatten(), end.double().flatten()
        norms = [float(x.norm()) for x in (a, b)]
        scale = math.prod(norm if norm > _ZERO_NORM else 1.0 for norm in norms)
        cosine = float(a.dot(b)) / scale
        if abs(cosine) > _PARALLEL:
            return 1 - self.t, self.t
        angle = math.acos(cosine)
        return (
            math.sin((1 - self.t) * angle) / math.sin(angle),
            math.sin(self.t * angle) / math.sin(angle),
        )


METHOD: type[MergeMethod] = Slerp
