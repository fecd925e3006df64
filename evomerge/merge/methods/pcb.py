"""PCB-Merging: parameters compete within a task and between tasks; only those that win are merged.

Du et al. 2024, https://arxiv.org/abs/2410.02396. The paper writes softmax where the authors' code has exp and
tanh; as in the code here. Two of their files differ in how tasks compete: `pcb_ES.py` on normalised
task vectors, so whatever their size, `pcb-merging.py` on raw ones, whose tanh is nearly a product. We rank
within each tensor, `compat: official` over the whole model as they do. A task vector that is zero gets no
share, where their code divides zero by zero.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.blocks import blocks
from evomerge.merge.kernels.order_statistics import Rows, order_statistics
from evomerge.merge.kernels.weighting import per_source, weighted_sum
from evomerge.merge.method import DRAWS_NOTHING, BaseUse, Cost, Ignored, MergeMethod, Operand, Site, Stream
from evomerge.parameters import Choice, Gene, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor

_LEAST_SHARE = 1e-12
"""Shares that sum to less are of no survivor."""


@dataclass(frozen=True, kw_only=True)
class Bounds:
    """Per source: what magnitudes are clipped to, the score that wins nothing and the one that wins all."""

    magnitudes: tuple[tuple[float, float], ...]
    scores: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Pcb:
    """The base plus, weight by weight, the mean of the task vectors by the shares they won."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "official")
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "ranks"
    ignores: ClassVar[frozenset[Ignored]] = DRAWS_NOTHING

    weight: Annotated[
        PerSource,
        Gene(
            low=0.5,
            high=1.5,
            default=1.0,
            meaning="multiplies each task vector, but not its share",
            also={"weights": float, "lambdas": float},
        ),
    ]
    density: Annotated[
        PerSource,
        Gene(
            low=0.02,
            high=0.3,
            default=0.2,
            meaning="share of each task vector whose scores win anything",
            least=0.0,
            most=1.0,
            also={"ratio": float},
        ),
    ]
    clamp: Annotated[
        float,
        Gene(
            low=1e-4,
            high=0.05,
            default=0.01,
            meaning="share of the magnitudes clipped at either end",
            searched=False,
            least=0.0,
            most=0.5,
        ),
    ]
    lambda_: Annotated[
        float, Gene(low=1.0, high=2.2, default=1.0, meaning="multiplies the mean", searched=False)
    ]
    variant: Annotated[
        str,
        Choice(
            options=("es", "main"),
            default="es",
            meaning="how tasks compete: on normalised task vectors, or on raw ones",
            also={"pcb_ES.py": "es", "pcb-merging.py": "main", "pcb_nlp.py": "main", "nlp": "main"},
        ),
    ]
    scope: Annotated[
        str,
        Choice(
            options=("auto", "tensor", "model"),
            default="auto",
            meaning="whether weights compete in each tensor or over the whole model; `auto` is `tensor`, "
            "and `model` under the authors' semantics",
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + λ Σ λᵢ δ̃ᵢ βᵢ / Σ βᵢ: `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        bounds = site.survey if self._whole_model else self.bounds(lambda: iter([operands]), base.numel())
        merged = operands.new_empty((1, *base.shape))
        merged[0] = base
        for deltas, into in zip(blocks(operands), blocks(merged), strict=True):
            clipped, share = self.compete(deltas, bounds)
            won = share.sum(0).clamp(min=_LEAST_SHARE)
            into[0].add_(weighted_sum(clipped * share, self.weight) / won, alpha=self.lambda_)
        return merged[0]

    def compete(self, deltas: Tensor, bounds: Bounds) -> tuple[Tensor, Tensor]:
        """Return of `deltas (n, *s)` the clipped task vectors δ̃ and their shares β in [0, 1], `(n, *s)`."""
        clipped = deltas.sign() * _clipped(deltas.abs(), bounds.magnitudes)
        return clipped, _stretched(self._scores(deltas, bounds), bounds.scores)

    def survey_key(self) -> Hashable | None:
        return (self.compat, self.density, self.clamp, self.variant) if self._whole_model else None

    def survey(self, stream: Stream) -> Bounds:
        """Find the bounds over the whole model, in four passes."""
        return self.bounds(
            lambda: (view.load() for view in stream()), sum(math.prod(view.shape) for view in stream())
        )

    def bounds(self, rows: Rows, size: int) -> Bounds:
        """Return the bounds of n task vectors of `size` entries, given in parts `(n, *s)`."""
        if not size:
            return Bounds(magnitudes=())

        def parts() -> Iterator[Tensor]:
            return (block for deltas in rows() for block in blocks(deltas))

        clipping = [(int(size * self.clamp), int(size * (1 - self.clamp) - 1))] * len(self.density)
        found = Bounds(magnitudes=_at(lambda: (deltas.abs() for deltas in parts()), clipping, size))
        winning = [(int(size * (1 - density)), size - 1) for density in self.density]
        scores = _at(lambda: (self._scores(deltas, found) for deltas in parts()), winning, size)
        return Bounds(magnitudes=found.magnitudes, scores=scores)

    @property
    def _whole_model(self) -> bool:
        if self.scope == "auto":
            return self.compat == "official"
        return self.scope == "model"

    def _scores(self, deltas: Tensor, bounds: Bounds) -> Tensor:
        """Return how each entry of `deltas (n, *s)` fares within its task and against the others."""
        size = _stretched(deltas.abs(), bounds.magnitudes)  # nz(a), (n, *s)
        # eᴺ less than the authors', whose exponential overflows with many sources; shares are relative
        intra = ((size.square() - 1) * len(deltas)).exp()
        if self.variant == "main":
            return intra * (deltas * deltas.sum(0)).tanh()
        signed = deltas.sign() * size  # q
        inter = deltas.new_zeros(deltas.shape)
        for other in signed:
            inter += (signed * other).tanh()
        return intra * inter


def _at(rows: Rows, ranks: list[tuple[int, int]], size: int) -> tuple[tuple[float, float], ...]:
    """Return each vector's entries at two ranks, of which there are `size`."""
    inside = [[min(max(rank, 0), size - 1) for rank in pair] for pair in ranks]
    return tuple((low.value, high.value) for low, high in order_statistics(rows, inside))


def _clipped(values: Tensor, bounds: tuple[tuple[float, float], ...]) -> Tensor:
    low, high = (per_source(each, values) for each in zip(*bounds, strict=True))
    return values.clamp(low, high)


def _stretched(values: Tensor, bounds: tuple[tuple[float, float], ...]) -> Tensor:
    """Return `values (n, *s)` clipped and mapped to [0, 1]; 0 where the bounds of a source are one."""
    low, high = (per_source(each, values) for each in zip(*bounds, strict=True))
    width = high - low
    return (values.clamp(low, high) - low) / width.where(width > 0, 1.0)


METHOD: type[MergeMethod] = Pcb
