"""Model Stock: from the base towards the models' mean, as far as their task vectors agree.

Jang et al. 2024, https://arxiv.org/abs/2403.19522. The paper assumes one angle between all task vectors; we
take the mean cosine over pairs. The ratio is held between 0 and 1, where mergekit and fusion_bench
extrapolate; mergekit mistakes small task vectors for orthogonal ones, fusion_bench averages the angles.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.angles import inner_products, lengths, rows, whole
from evomerge.merge.method import COMMUTES, EVERYONES, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import Choice, Gene
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor

_MERGEKIT_NORMS = 1e-6
_FUSION_BENCH_EPS = 1e-8
_NO_DIVISOR = 1e-12


@dataclass(frozen=True, kw_only=True)
class ModelStock:
    """The point between the base and the models' mean that the angles between task vectors say."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (2, None)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "norms"
    ignores: ClassVar[frozenset[Ignored]] = COMMUTES

    filter_wise: Annotated[
        bool, Choice(options=(False, True), default=False, meaning="an angle for each row of a matrix")
    ]
    t_scale: Annotated[
        float, Gene(low=0.5, high=1.5, default=1.0, meaning="multiplies the way from the base to the mean")
    ]
    clamp_t: Annotated[
        str,
        Choice(
            options=("auto", "unit", "none"),
            default="auto",
            meaning="whether the ratio stays between 0 and 1; `auto` is `unit`, and `none` under mergekit's "
            "and fusion_bench's semantics",
            also={True: "unit", False: "none"},
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + t · mean δᵢ: `base (*s)` and `operands (n, *s)` to `(*s)`."""
        del site
        assert base is not None  # `base` is declared "needed"
        vectors = rows(operands) if self.filter_wise else whole(operands)  # (n, r, d)
        t = self._ratio(inner_products(vectors)) * self.t_scale  # (r,)
        return base + (vectors.mean(0) * t.to(vectors).unsqueeze(-1)).reshape(base.shape)

    def _ratio(self, products: Tensor) -> Tensor:
        """Return t = N c / (1 + (N − 1) c), `(r,)`, for inner products `(r, n, n)`."""
        n = products.shape[-1]
        cosine = self._cosine(products)
        divisor = 1 + (n - 1) * cosine
        if self.compat == "fusion_bench":
            divisor = divisor + _FUSION_BENCH_EPS
        ratio = (n * cosine / divisor).where(divisor.abs() > _NO_DIVISOR, 0.0)
        free = (
            self.compat in ("mergekit", "fusion_bench") if self.clamp_t == "auto" else self.clamp_t == "none"
        )
        return ratio if free else ratio.clamp(0, 1).where(divisor > 0, 0.0)

    def _cosine(self, products: Tensor) -> Tensor:
        """Return what stands for the one angle's cosine, `(r,)`: 0 where a task vector is zero."""
        pairs = list(combinations(range(products.shape[-1]), 2))
        first, second = ([pair[side] for pair in pairs] for side in (0, 1))
        dots = products[:, first, second]  # (r, pairs)
        norms = lengths(products)
        norms = norms[:, first] * norms[:, second]
        if self.compat == "fusion_bench":
            return (dots / (norms + _FUSION_BENCH_EPS)).clamp(-1, 1).acos().mean(-1).cos()
        if self.compat == "mergekit":
            return (dots / norms.clamp(min=_MERGEKIT_NORMS)).clamp(-1, 1).mean(-1)
        return (dots / norms).where(norms > 0, 0.0).clamp(-1, 1).mean(-1)


METHOD: type[MergeMethod] = ModelStock
