"""TIES: trim each task vector, elect one sign per weight, average what agrees.

Yadav et al. 2023, https://arxiv.org/abs/2306.01708. By default as mergekit: trimmed per tensor, weighted
before the election. `compat` selects the rules of the authors' code, of PEFT or of MergeLM instead,
which differ in what they trim over, in who votes, and in what an undecided vote means.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from evomerge.errors import MergeError
from evomerge.merge.kernels.consensus import agreeing, elect, strongest
from evomerge.merge.kernels.trimming import global_cut, kept_count, trim, trim_at
from evomerge.merge.kernels.weighting import per_source
from evomerge.merge.method import BaseUse, MergeMethod, Operand, Site, Stream
from evomerge.parameters import Choice, Gene, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """Where the implementations of TIES differ."""

    whole_model: bool
    weights_vote: bool
    undecided: Literal["positive", "majority", "nobody"]
    divisor: Literal["weights", "count"]


_RULES = {
    "evomerge": _Rules(whole_model=False, weights_vote=True, undecided="positive", divisor="weights"),
    "mergekit": _Rules(whole_model=False, weights_vote=True, undecided="positive", divisor="weights"),
    "peft": _Rules(whole_model=False, weights_vote=False, undecided="positive", divisor="count"),
    "official": _Rules(whole_model=True, weights_vote=True, undecided="majority", divisor="count"),
    "mergelm": _Rules(whole_model=True, weights_vote=True, undecided="nobody", divisor="count"),
}


@dataclass(frozen=True, kw_only=True)
class _Cuts:
    """What trimming over the whole model needs: per source a threshold, and how many ties to keep."""

    thresholds: tuple[float, ...]
    spare: dict[str, tuple[int | None, ...]]
    majority: float = 1.0


@dataclass(frozen=True, kw_only=True)
class Ties:
    """Task vectors, stripped of noise and of disagreement."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = tuple(_RULES)
    additive: ClassVar[Mapping[str, Value] | None] = None

    weight: Annotated[
        PerSource,
        Gene(
            low=0.0,
            high=1.5,
            default=1.0,
            meaning="how much of each trimmed task vector",
            also={"weights": float},
        ),
    ]
    density: Annotated[
        PerSource,
        Gene(
            low=0.1,
            high=1.0,
            default=1.0,
            meaning="share of each task vector kept, largest first",
            least=0.0,
            also={"k_percent": lambda percent: percent / 100},
        ),
    ]
    lambda_: Annotated[
        float,
        Gene(low=0.3, high=2.5, default=1.0, meaning="multiplies the merged vector", searched=False),
    ]
    normalize: Annotated[
        bool,
        Choice(options=(True, False), default=True, meaning="divide by the weights that agree (mean)"),
    ]
    sign_method: Annotated[
        str,
        Choice(
            options=("total", "count"),
            default="total",
            meaning="who votes: magnitudes or sources",
            also={"frequency": "count"},
        ),
    ]
    merge_: Annotated[
        str,
        Choice(options=("mean", "sum", "max"), default="mean", meaning="what becomes of those agreeing"),
    ]
    scope: Annotated[
        str,
        Choice(
            options=("tensor", "model"),
            default="tensor",
            meaning="whether a density holds in each tensor or over the whole model",
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Merge `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        trimmed = self._trim(operands, site)
        return base.add(self.combine(trimmed, site.survey), alpha=self.lambda_)

    def combine(self, deltas: Tensor, survey: _Cuts | None = None) -> Tensor:
        """Elect and merge `deltas (n, *s)`, trimmed already, to one task vector `(*s)`."""
        rules = _RULES[self.compat]
        weighted = deltas * per_source(self.weight, deltas)
        voters = weighted if rules.weights_vote else deltas
        sign = elect(voters, self.sign_method)
        if rules.undecided != "nobody":
            sign = sign.where(sign != 0, survey.majority if survey else 1.0)
        agree = agreeing(voters, sign)
        if self.merge_ == "max":
            return strongest(weighted, agree, sign)
        total = (weighted * agree).sum(0)
        if self.merge_ == "sum" or not self.normalize:
            return total
        if rules.divisor == "count":
            return total / agree.sum(0).clamp(min=1)
        divisor = (agree * per_source(self.weight, deltas)).sum(0)
        return total / divisor.where(divisor != 0, 1.0)

    def survey_key(self) -> Hashable | None:
        return (self.compat, self.density) if self._whole_model else None

    def survey(self, stream: Stream) -> _Cuts:
        """Find every source's cut over the whole model, and how undecided votes fall."""
        sizes = [operands[0].numel() for _, operands in stream()]
        counts = [self._global_count(density, sum(sizes)) for density in self.density]

        def task_vector(source: int) -> Iterator[Tensor]:
            return (operands[source] for _, operands in stream())

        cuts = [
            global_cut(lambda i=i: task_vector(i), count) if count > 0 else None  # type: ignore[misc]
            for i, count in enumerate(counts)
        ]
        thresholds = tuple(cut.threshold if cut else float("inf") for cut in cuts)
        if self.compat in ("official", "mergelm"):
            found = _Cuts(thresholds=thresholds, spare={})
            return replace(found, majority=self._majority(stream, found))
        spare = [count - cut.above if cut else 0 for count, cut in zip(counts, cuts, strict=True)]
        return _Cuts(thresholds=thresholds, spare=_share_out(stream, thresholds, spare))

    @property
    def _whole_model(self) -> bool:
        return self.scope == "model" or _RULES[self.compat].whole_model

    def _trim(self, deltas: Tensor, site: Site) -> Tensor:
        if self.compat in ("official", "mergelm") and set(self.weight) != {1.0}:
            raise MergeError(f"`compat: {self.compat}` has no weights in TIES, found {self.weight}")
        kept = deltas.new_empty(deltas.shape)
        for i, delta in enumerate(deltas):
            if self._whole_model:
                cuts = site.survey
                spare = cuts.spare[site.tensor][i] if cuts.spare else None
                kept[i] = trim_at(delta, cuts.thresholds[i], spare)
            else:
                kept[i] = trim(delta, kept_count(self.density[i], delta.numel()))
        return kept

    def _global_count(self, density: float, size: int) -> int:
        """Return how many entries of a task vector of `size` survive (before ties, if they all stay)."""
        if self.compat == "official":
            return min(size, int(size * density) + 1)
        if self.compat == "mergelm":
            return min(size, size - int(size * (1 - density)) + 1)
        return kept_count(density, size)

    def _majority(self, stream: Stream, cuts: _Cuts) -> float:
        """Return the sign most elections gave; a tie is negative, as in the authors' code."""
        total = 0.0
        for name, operands in stream():
            trimmed = self._trim(operands, Site(tensor=name, sources=(), seed=0, survey=cuts))
            total += float(elect(trimmed, self.sign_method).double().sum())
        return 1.0 if total > 0 else -1.0


def _share_out(
    stream: Stream, thresholds: tuple[float, ...], spare: list[int]
) -> dict[str, tuple[int | None, ...]]:
    """Return how many entries equal to the cut each tensor keeps: earlier tensors first."""
    shares: dict[str, tuple[int | None, ...]] = {}
    for name, operands in stream():
        ties = [int((delta.abs() == cut).sum()) for delta, cut in zip(operands, thresholds, strict=True)]
        kept = [min(tied, left) for tied, left in zip(ties, spare, strict=True)]
        spare = [left - taken for left, taken in zip(spare, kept, strict=True)]
        shares[name] = tuple(kept)
    return shares


METHOD: type[MergeMethod] = Ties
