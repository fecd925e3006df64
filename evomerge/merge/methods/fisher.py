"""Fisher-weighted averaging: of each weight, the mean that trusts whom it matters to.

Matena & Raffel 2022, https://arxiv.org/abs/2111.09832: θ = Σ cᵢ Fᵢ θᵢ / Σ cᵢ Fᵢ entry by entry, with the
diagonal Fisher information Fᵢ ≥ 0 of each model, over its L2 norm so that no model wins by large
gradients. Fishers of language models lie near 1e-10, where an absolute floor would drown them, so our
floor is relative to their mean, and the same for all: what matters to nobody is averaged by cᵢ. The
authors' code floors each Fisher at 1e-6 before it is normalised, MergeLM and FusionBench add that.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.errors import MergeError
from evomerge.merge.kernels.shares import SHARE, shares
from evomerge.merge.kernels.weighting import weighted_sum
from evomerge.merge.method import DRAWS_NOTHING, BaseUse, Cost, Ignored, MergeMethod, Operand, Site, Stream
from evomerge.parameters import Choice, Gene, PerSource
from evomerge.types import Statistic, Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """Where the implementations differ."""

    relative: bool = False
    """The floor is a share of the mean of the normalised Fishers."""
    added: bool = False
    """The floor is added to Fishers and norms instead of being their least."""
    favor_target: bool = False
    """Unless told otherwise only the first source has a floor."""


_RULES = {
    "evomerge": _Rules(relative=True),
    "official": _Rules(favor_target=True),
    "mergelm": _Rules(added=True),
    "fusion_bench": _Rules(added=True),
}


@dataclass(frozen=True, kw_only=True)
class _Size:
    """How large the Fisher of each source is, over `count` entries."""

    sums: tuple[float, ...]  # (n,)
    squares: tuple[float, ...]  # (n,)
    count: int


@dataclass(frozen=True, kw_only=True)
class Fisher:
    """The mean of the models, weighted entry by entry with what each knows about it."""

    on: ClassVar[Operand] = "weights"
    base: ClassVar[BaseUse] = "unused"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = tuple(_RULES)
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "norms"
    ignores: ClassVar[frozenset[Ignored]] = DRAWS_NOTHING
    statistic: ClassVar[Statistic] = "fisher"

    weight: Annotated[PerSource, SHARE]
    floor: Annotated[
        float,
        Gene(
            low=1e-8,
            high=1e-4,
            default=1e-6,
            meaning="least Fisher of an entry: a share of the mean, or absolute under other semantics",
            searched=False,
            least=0.0,
            also={"minimal": float},
        ),
    ]
    favor_target: Annotated[
        Value,
        Choice(
            options=("auto", True, False),
            default="auto",
            meaning="only the first source has a floor, so it has what matters to nobody; `auto` is false, "
            "and true under the authors' semantics",
        ),
    ]
    normalize: Annotated[
        str,
        Choice(
            options=("model", "tensor", "none"),
            default="model",
            meaning="divide each Fisher by its L2 norm over the whole model or in each tensor",
            also={"model_l2": "model", "tensor_l2": "tensor", True: "model", False: "none"},
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return Σ cᵢ Fᵢ θᵢ / Σ cᵢ Fᵢ, where all Fᵢ are zero Σ cᵢ θᵢ: `operands (n, *s)` to `(*s)`."""
        del base
        share = shares(self.weight, site.tensor)
        average = weighted_sum(operands, share)
        fishers = _fishers(site)
        if fishers is None:
            return average
        size = site.survey if self.normalize == "model" else _size(fishers)
        norms = self._norms(size)
        floors = self._floors(size, norms)
        total, merged = average.new_zeros(average.shape), average.new_zeros(average.shape)
        for i, fisher in enumerate(fishers):
            _check(fisher, operands[i], site, i)
            raised = fisher + floors[i] if _RULES[self.compat].added else fisher.clamp(min=floors[i])
            raised = raised * (share[i] / norms[i])
            total.add_(raised)
            merged.addcmul_(raised, operands[i])
        return (merged / total).where(total > 0, average)

    def survey_key(self) -> Hashable | None:
        return "model" if self.normalize == "model" else None

    def survey(self, stream: Stream) -> _Size:
        """Return how large each source's Fisher is over all tensors that every source has one of."""
        return _together([_size(fishers) for view in stream() if (fishers := _fishers(view.site))])

    def _norms(self, size: _Size) -> list[float]:
        """Return what each Fisher is divided by; a norm of zero divides nothing."""
        if self.normalize == "none":
            return [1.0] * len(size.sums)
        more = self.floor if _RULES[self.compat].added else 0.0
        return [math.sqrt(square) + more or 1.0 for square in size.squares]

    def _floors(self, size: _Size, norms: Sequence[float]) -> list[float]:
        """Return the floor of each Fisher before it is normalised."""
        rules = _RULES[self.compat]
        floors = [self.floor] * len(norms)
        if rules.relative:
            means = [total / norm for total, norm in zip(size.sums, norms, strict=True)]
            mean = math.fsum(means) / (len(norms) * max(size.count, 1))
            floors = [self.floor * mean * norm for norm in norms]
        first_only = rules.favor_target if self.favor_target == "auto" else self.favor_target
        return [floors[0], *[0.0] * (len(floors) - 1)] if first_only else floors


def _fishers(site: Site) -> list[Tensor] | None:
    """Return the Fisher of each source, or None if one of them has none of this tensor."""
    found = [fisher for fisher in site.statistics if fisher is not None]
    return found if len(found) == len(site.sources) else None


def _check(fisher: Tensor, operand: Tensor, site: Site, source: int) -> None:
    if fisher.shape != operand.shape:
        raise MergeError(
            f"the Fisher information of `{site.tensor}` in {site.sources[source]} is {list(fisher.shape)}, "
            f"not {list(operand.shape)}"
        )
    if bool((fisher < 0).any()):
        raise MergeError(f"the Fisher information of `{site.tensor}` in {site.sources[source]} is negative")


def _size(fishers: Sequence[Tensor]) -> _Size:
    doubles = [fisher.double() for fisher in fishers]
    return _Size(
        sums=tuple(float(each.sum()) for each in doubles),
        squares=tuple(float(each.square().sum()) for each in doubles),
        count=fishers[0].numel(),
    )


def _together(sizes: Sequence[_Size]) -> _Size:
    """Return the size of all tensors together, the same in any order."""

    def totals(rows: Iterable[tuple[float, ...]]) -> tuple[float, ...]:
        return tuple(math.fsum(each) for each in zip(*rows, strict=True))

    return _Size(
        sums=totals(size.sums for size in sizes),
        squares=totals(size.squares for size in sizes),
        count=sum(size.count for size in sizes),
    )


METHOD: type[MergeMethod] = Fisher
