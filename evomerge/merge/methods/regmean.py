"""RegMean: the linear layer that comes closest to what each model's layer says on its own inputs.

Jin et al. 2023, https://arxiv.org/abs/2212.09849: W = (Σ cᵢ G̃ᵢ)⁻¹ Σ cᵢ G̃ᵢ Wᵢ with the Gram matrix of
its inputs Gᵢ = XᵢᵀXᵢ / tokens and G̃ = a·G + (1 − a)·diag(G); other tensors are averaged. Solved here in
float64 for the difference from the average W̄, with a ridge: where the inputs say nothing (dead features,
fewer tokens than features) the result is W̄, where the authors' plain inverse fails or explodes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.errors import MergeError
from evomerge.merge.kernels.shares import SHARE, shares
from evomerge.merge.kernels.weighting import weighted_sum
from evomerge.merge.method import DRAWS_NOTHING, BaseUse, Cost, Ignored, MergeMethod, Operand, Site
from evomerge.parameters import Gene, PerSource
from evomerge.types import Statistic, Value

if TYPE_CHECKING:
    from torch import Tensor

_RIDGE = 1e-6
"""What is added to the diagonal, as a share of its mean."""


@dataclass(frozen=True, kw_only=True)
class RegMean:
    """Linear layers by least squares on the models' own inputs, the rest averaged.

    MergeLM, FusionBench and the authors' code agree: theirs multiplies each Gᵢ by cᵢ·n, and n cancels.
    """

    on: ClassVar[Operand] = "weights"
    base: ClassVar[BaseUse] = "unused"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "official", "mergelm", "fusion_bench", "regmean_repo")
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "decomposition"
    ignores: ClassVar[frozenset[Ignored]] = DRAWS_NOTHING
    statistic: ClassVar[Statistic] = "gram"

    weight: Annotated[PerSource, SHARE]
    reduce_non_diagonal_ratio: Annotated[
        float,
        Gene(
            low=0.0,
            high=1.0,
            default=0.9,
            meaning="share kept of what is off the Gram matrices' diagonals; 0 weights by input feature",
            least=0.0,
            most=1.0,
        ),
    ]
    compat: str = "evomerge"

    def __post_init__(self) -> None:
        if self.reduce_non_diagonal_ratio > 1:
            raise MergeError(
                f"`reduce_non_diagonal_ratio` is a share, at most 1, found {self.reduce_non_diagonal_ratio:g}"
            )

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Merge `operands (n, out, in)`, or `(n, in, out)` if inputs come first, by their Gram matrices."""
        del base
        share = shares(self.weight, site.tensor)
        average = weighted_sum(operands, share)
        grams = [gram for gram in site.statistics if gram is not None]
        if len(grams) < len(site.sources) or average.ndim != 2 or not average.numel():
            return average
        inputs_last = not site.inputs_first
        mean = average.double().T if inputs_last else average.double()  # (in, out)
        total, pull = mean.new_zeros(len(mean), len(mean)), mean.new_zeros(mean.shape)
        for i, (gram, operand) in enumerate(zip(grams, operands, strict=True)):
            _check(gram, len(mean), site, i)
            reduced = self._reduced(gram).mul_(share[i])  # cᵢ G̃ᵢ (in, in)
            weight = operand.double().T if inputs_last else operand.double()
            total.add_(reduced)
            pull.add_(reduced @ (weight - mean))
        step = _solved(total, pull)
        return average + (step.T if inputs_last else step).to(average.dtype)

    def _reduced(self, gram: Tensor) -> Tensor:
        """Return a·G + (1 − a)·diag(G) in float64."""
        diagonal = gram.diagonal().double()
        reduced = gram.double() * self.reduce_non_diagonal_ratio
        reduced.diagonal().copy_(diagonal)
        return reduced


def _check(gram: Tensor, features: int, site: Site, source: int) -> None:
    if gram.shape != (features, features):
        raise MergeError(
            f"the Gram matrix of `{site.tensor}` in {site.sources[source]} is {list(gram.shape)}, but the "
            f"weight has {features} inputs"
        )


def _solved(matrix: Tensor, right: Tensor) -> Tensor:
    """Return (A + ridge)⁻¹ B for `matrix (in, in)`, which is written to, and `right (in, out)`."""
    import torch

    ridge = _RIDGE * float(matrix.diagonal().mean())
    if ridge <= 0:
        return torch.zeros_like(right)  # no input was ever seen
    matrix.diagonal().add_(ridge)
    solved: Tensor = torch.linalg.solve(matrix, right)
    return solved


METHOD: type[MergeMethod] = RegMean
