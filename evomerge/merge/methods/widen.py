"""WIDEN: weigh each column of each model by how much it changed in length and in direction.

Yu et al. 2024, https://arxiv.org/abs/2408.03092. Columns rank within a model, models compete by softmax for
each column, and what stands out in its model gets a fixed score instead. A column is one input of a
matrix, one token of an embedding; one-dimensional tensors compete entry by entry with the size of their
change. Zero columns, which give NaN in the authors' code, have no change of direction.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.ranking import ranks, rows_of
from evomerge.merge.method import COMMUTES, EVERYONES, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import Gene
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Widen:
    """The base plus task vectors whose columns are weighted by their significance."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = EVERYONES
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "norms"
    ignores: ClassVar[frozenset[Ignored]] = COMMUTES

    above_average_ratio: Annotated[
        float,
        Gene(
            low=0.5,
            high=2.0,
            default=1.0,
            meaning="how far above its model's average a column must rank to get the fixed score",
            also={"above_average_value_ratio": float, "t": float},
        ),
    ]
    score: Annotated[
        float,
        Gene(
            low=0.3,
            high=1.2,
            default=1.0,
            meaning="the weight of columns that stand out",
            also={"score_calibration_value": float, "s": float},
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + Σ scoreᵢ δᵢ: `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        if base.ndim < 2:
            changes = operands.double().abs().reshape(len(operands), -1)
            scores = self._scores(changes, changes.mean(-1, keepdim=True)).reshape(operands.shape)
        else:
            along = -1 if site.embedding and base.ndim == 2 else -2  # where a column runs
            length, direction = _changes(base, operands, along)
            scores = (self._ranked(length) + self._ranked(direction)) / 2
            scores = scores.unsqueeze(along)
        merged = base.clone()
        for delta, score in zip(operands, scores, strict=True):
            merged.addcmul_(delta, score.to(delta))
        return merged

    def _ranked(self, changes: Tensor) -> Tensor:
        """Return the score of each model's columns by the ranks of their `changes (n, *lead, columns)`.

        The average rank is written down, not summed up: the column in the middle is not above it, and
        a sum would let the rounding decide.
        """
        columns = changes.shape[-1]
        order = ranks(rows_of(changes)).reshape(changes.shape).double()
        return self._scores(order, (columns - 1) / 2, most=columns)

    def _scores(self, significance: Tensor, mean: Tensor | float, *, most: int = 1) -> Tensor:
        """Return the score of each model's entries of `significance (n, *s)`, whose mean is `mean`."""
        stands_out = significance > self.above_average_ratio * mean
        return (significance / most).softmax(0).where(~stands_out, self.score)


def _changes(base: Tensor, deltas: Tensor, along: int) -> tuple[Tensor, Tensor]:
    """Return how much each column changes in length, and 1 − cos of the angle: `(n, *lead, columns)`.

    1 − cos is (|δ|² − (|w| − |w₀|)²) / (2 |w| |w₀|), which is exactly zero where nothing changes.
    """
    before = base.double().norm(dim=along)
    length = before.new_empty((len(deltas), *before.shape))
    direction = before.new_empty(length.shape)
    for i, delta in enumerate(deltas):
        after = (base.double() + delta).norm(dim=along)
        length[i] = (after - before).abs()
        scale = 2 * after * before
        turned = delta.double().norm(dim=along) ** 2 - length[i] ** 2
        direction[i] = (turned.clamp(min=0) / scale).where(scale > 0, 0.0)
    return length, direction


METHOD: type[MergeMethod] = Widen
