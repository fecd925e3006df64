"""OPCM: merge one task vector after the other, each without what lies along those before it.

Tang et al. 2025, https://arxiv.org/abs/2501.09522. Where they rescale the merged task vector after each
source, we do so once: singular vectors do not depend on a scale, so every tensor can be merged by itself
and only the last scale λ_N needs the whole model. An `alpha` of 1 projects everything out, where their
code (`compat: official`, FusionBench) then finds no direction and takes the diagonal only; zero task
vectors give the base, where theirs gives NaN; and along singular vectors that are arbitrary, because their
singular value is zero, nothing is taken.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.projection import project_out
from evomerge.merge.method import DRAWS_NOTHING, BaseUse, Cost, Ignored, MergeMethod, Operand, Site, Stream
from evomerge.parameters import Gene, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor

_KEPT_BYTES = 1 << 28
"""Merged matrices kept from the survey, lest they be decomposed again: as much as one large matrix."""


@dataclass(frozen=True, kw_only=True)
class Scales:
    """The scale λ_t of the merged task vector after each source, and matrices that are merged already."""

    lambdas: tuple[float, ...]
    merged: Mapping[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Opcm:
    """The base plus orthogonally projected task vectors, as long as the task vectors are on average."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "official", "fusion_bench")
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "decomposition"
    ignores: ClassVar[frozenset[Ignored]] = DRAWS_NOTHING

    alpha: Annotated[
        float,
        Gene(
            low=0.1,
            high=0.9,
            default=0.5,
            meaning="share of the singular values whose directions are closed to later sources",
            least=0.0,
            most=1.0,
            whole=True,
        ),
    ]
    order: Annotated[
        PerSource,
        Gene(
            low=0.0,
            high=1.0,
            default=0.5,
            meaning="when each source is merged: lower values first, equal ones in the order of the sources",
            whole=True,
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + Δ_N / λ_N: `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        scale = site.survey.lambdas[-1]
        if not scale:
            return base.clone()
        merged = site.survey.merged.get(site.tensor)
        if merged is None:
            *_, merged = self.steps(operands, site)
        return base.add(merged, alpha=1 / scale)

    def steps(self, deltas: Tensor, site: Site) -> Iterator[Tensor]:
        """Yield Δ_t = Δ_{t−1} + δ̂_t `(*s)` for `deltas (n, *s)`, before any scaling."""
        first, *rest = self._sequence
        merged = deltas[first]
        yield merged
        for source in rest:
            delta = deltas[source]
            if _is_linear(delta, site):
                delta = project_out(merged, delta, self.alpha, none_beyond=self.compat != "evomerge")
            merged = merged + delta
            yield merged

    def survey_key(self) -> Hashable | None:
        return (self.compat, self.alpha, self.order)

    def survey(self, stream: Stream) -> Scales:
        """Merge every tensor for the lengths: λ_t is |Δ_t| over the mean of |δ_1| to |δ_t|."""
        lengths: list[list[float]] = []  # squared, by tensor: of every δ_t, then of every Δ_t
        kept: dict[str, Tensor] = {}
        room = _KEPT_BYTES
        for view in stream():
            deltas = view.load()
            squares = [_square(deltas[source]) for source in self._sequence]
            for merged in self.steps(deltas, view.site):
                squares.append(_square(merged))
            lengths.append(squares)
            if len(self.order) > 1 and _is_linear(merged, view.site) and merged.nbytes <= room:
                kept[view.site.tensor] = merged
                room -= merged.nbytes
        return Scales(lambdas=_lambdas(lengths, len(self.order)), merged=kept)

    @property
    def _sequence(self) -> list[int]:
        """The sources in the order in which they are merged."""
        return sorted(range(len(self.order)), key=self.order.__getitem__)


def _is_linear(delta: Tensor, site: Site) -> bool:
    """Return whether the tensor is a linear map's matrix: biases, norms and embeddings are none."""
    return delta.ndim == 2 and not site.embedding


def _square(vector: Tensor) -> float:
    wide = vector.double().flatten()
    return float(wide.dot(wide))


def _lambdas(squares: list[list[float]], count: int) -> tuple[float, ...]:
    """Return λ_t for t = 1 to `count`. Sums are exact, so that the order of the tensors does not count."""
    lengths = [math.sqrt(math.fsum(column)) for column in zip(*squares, strict=True)]
    found = []
    for t in range(1, count + 1):
        mean = math.fsum(lengths[:t]) / t
        found.append(lengths[count + t - 1] / mean if mean else 0.0)
    return tuple(found)


METHOD: type[MergeMethod] = Opcm
