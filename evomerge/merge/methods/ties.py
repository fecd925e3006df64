"""TIES: trim each task vector, elect one sign per weight, average what agrees.

Yadav et al. 2023, https://arxiv.org/abs/2306.01708. By default as mergekit: trimmed per tensor, weighted
before the election. `compat` selects the rules of the authors' code, of PEFT, of MergeLM or of FusionBench
instead, which differ in what they trim over, in who votes, and in what an undecided vote means.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

from evomerge.errors import MergeError
from evomerge.merge.kernels.blocks import blocks
from evomerge.merge.kernels.consensus import SIGN_METHOD, VOTE_WEIGHT, agreeing, elect, strongest
from evomerge.merge.kernels.trimming import global_cuts, kept_count, share_out, trim, trim_at
from evomerge.merge.kernels.weighting import per_source
from evomerge.merge.method import COMMUTES, SUMS, BaseUse, Cost, Ignored, MergeMethod, Operand, Site, Stream
from evomerge.parameters import Choice, Gene, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class _Rules:
    """Where the implementations of TIES differ."""

    whole_model: bool = False
    """Trim over the whole model unless told otherwise, keeping every entry that equals the cut."""
    weights: bool = True
    """Sources have weights."""
    weights_vote: bool = True
    majority: bool = False
    """An undecided vote takes the sign that most votes gave."""
    undecided: float = 1.0
    """What an undecided vote means otherwise; 0 selects nobody."""
    divisor: Literal["weights", "count"] = "weights"


_OFFICIAL = _Rules(whole_model=True, weights=False, majority=True, undecided=-1.0, divisor="count")
_RULES = {
    "evomerge": _Rules(),
    "mergekit": _Rules(),
    "peft": _Rules(weights_vote=False, divisor="count"),
    "official": _OFFICIAL,
    "fusion_bench": _OFFICIAL,
    "mergelm": replace(_OFFICIAL, undecided=0.0),
}


@dataclass(frozen=True, kw_only=True)
class _Cuts:
    """What trimming over the whole model needs: per source a threshold, and how many ties to keep."""

    thresholds: tuple[float, ...]
    spare: dict[str, tuple[int, ...]]
    majority: float = 0.0
    """The sum of the elected signs, where an undecided vote asks for it."""


@dataclass(frozen=True, kw_only=True)
class Ties:
    """Task vectors, stripped of noise and of disagreement."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = tuple(_RULES)
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "ranks"

    weight: Annotated[PerSource, VOTE_WEIGHT]
    density: Annotated[
        PerSource,
        Gene(
            low=0.1,
            high=1.0,
            default=1.0,
            meaning="share of each task vector kept, largest first",
            least=0.0,
            most=1.0,
            grain=1e-6,
            also={
                "k_percent": lambda percent: percent / 100,
                **dict.fromkeys(("mask_rate", "param_value_mask_rate"), lambda rate: round(1 - rate, 12)),
            },
        ),
    ]
    lambda_: Annotated[
        float,
        Gene(
            low=0.3,
            high=2.5,
            default=1.0,
            meaning="multiplies the merged vector",
            searched=False,
            grain=1e-6,
            also={"scaling_coefficient": float},
            under={"fusion_bench": 0.3},
        ),
    ]
    normalize: Annotated[
        bool,
        Choice(options=(True, False), default=True, meaning="divide by the weights that agree (mean)"),
    ]
    sign_method: Annotated[str, SIGN_METHOD]
    merge_: Annotated[
        str,
        Choice(
            options=("mean", "sum", "max"),
            default="mean",
            meaning="what becomes of those agreeing",
            also={"dis-mean": "mean", "dis-sum": "sum", "dis-max": "max"},
            under={"fusion_bench": "sum"},
        ),
    ]
    scope: Annotated[
        str,
        Choice(
            options=("auto", "tensor", "model"),
            default="auto",
            meaning="whether a density holds in each tensor or over the whole model; `auto` is `tensor`, "
            "and `model` under the authors' and MergeLM's semantics",
        ),
    ]
    compat: str = "evomerge"

    def __post_init__(self) -> None:
        if not _RULES[self.compat].weights and set(self.weight) != {1.0}:
            raise MergeError(
                f"`compat: {self.compat}` has no weights in TIES, found {list(self.weight)}; "
                "fix `weight` at 1"
            )

    @property
    def ignores(self) -> frozenset[Ignored]:
        rules = _RULES[self.compat]
        return SUMS if rules.weights and rules.weights_vote else COMMUTES

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Merge `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        return self.merge_vectors(operands, site).mul_(self.lambda_).add_(base)

    def merge_vectors(self, deltas: Tensor, site: Site) -> Tensor:
        """Trim, elect and merge `deltas (n, *s)` to one task vector `(*s)`, before λ."""
        whole = self._whole_model
        trimmed = deltas if whole else self._trim(deltas)
        if _RULES[self.compat].majority and site.survey is None:
            return self.combine(trimmed)  # the majority is that of the whole tensor
        spare = self._spare(site) if whole else []
        merged = deltas.new_empty((1, *deltas.shape[1:]))
        for part, into in zip(blocks(trimmed), blocks(merged), strict=True):
            into[0] = self.combine(self._cut(part, site.survey, spare) if whole else part, site.survey)
        return merged[0]

    def combine(self, deltas: Tensor, survey: _Cuts | None = None) -> Tensor:
        """Elect and merge `deltas (n, *s)`, trimmed already, to one task vector `(*s)`."""
        rules = _RULES[self.compat]
        weighted = deltas * per_source(self.weight, deltas)
        voters = weighted if rules.weights_vote else deltas
        sign = elect(voters, self.sign_method)
        sign = sign.where(sign != 0, self._undecided(sign, survey))
        agree = agreeing(voters, sign)
        if self.merge_ == "max":
            return strongest(weighted, agree, sign)
        total = weighted.mul_(agree).sum(0)
        if self.merge_ == "sum" or not self.normalize:
            return total
        if rules.divisor == "count":
            return total / agree.sum(0).clamp(min=1)
        divisor = (agree * per_source(self.weight, deltas)).sum(0)
        return total / divisor.where(divisor != 0, 1.0)

    def survey_key(self) -> Hashable | None:
        return (self.compat, self.density, self.sign_method) if self._whole_model else None

    def survey(self, stream: Stream) -> _Cuts:
        """Find every source's cut over the whole model, and how undecided votes fall."""
        sizes = [math.prod(view.shape) for view in stream()]
        counts = [self._count(density, sum(sizes)) for density in self.density]
        cuts = global_cuts(lambda: (view.load() for view in stream()), counts)
        thresholds = tuple(cut.value for cut in cuts)
        if _RULES[self.compat].whole_model:
            found = _Cuts(thresholds=thresholds, spare={})
            return replace(found, majority=self._votes(stream, found))
        return _Cuts(thresholds=thresholds, spare=share_out(stream, cuts, counts))

    @property
    def _whole_model(self) -> bool:
        if self.scope == "auto":
            return _RULES[self.compat].whole_model
        return self.scope == "model"

    def _undecided(self, sign: Tensor, survey: _Cuts | None) -> float:
        """Return what an undecided vote means, among votes that gave `sign (*s)`."""
        rules = _RULES[self.compat]
        if not rules.majority:
            return rules.undecided
        votes = survey.majority if survey else float(sign.double().sum())
        return math.copysign(1.0, votes) if votes else rules.undecided

    def _trim(self, deltas: Tensor) -> Tensor:
        """Return `deltas (n, *s)` trimmed, each tensor by itself."""
        kept = deltas.new_empty(deltas.shape)
        for i, delta in enumerate(deltas):
            count = self._count(self.density[i], delta.numel())
            kept[i] = trim(delta, count, every_tie=_RULES[self.compat].whole_model)
        return kept

    def _spare(self, site: Site) -> list[int | None]:
        """Return how many entries that equal the cut a tensor keeps of each source; None: all."""
        cuts = site.survey
        return list(cuts.spare[site.tensor]) if cuts.spare else [None] * len(self.density)

    def _cut(self, deltas: Tensor, cuts: _Cuts, spare: list[int | None]) -> Tensor:
        """Return the next block of `deltas (n, b)` trimmed at the whole model's cuts; takes off `spare`."""
        kept = deltas.new_empty(deltas.shape)
        for i, (delta, threshold) in enumerate(zip(deltas, cuts.thresholds, strict=True)):
            left = spare[i]
            kept[i] = trim_at(delta, threshold, left)
            if left is not None:
                spare[i] = max(0, left - int((delta.abs() == threshold).sum()))
        return kept

    def _count(self, density: float, size: int) -> int:
        """Return how many of `size` entries survive (before ties, if they all stay)."""
        if self.compat in ("official", "fusion_bench"):
            return min(size, int(size * density) + 1)
        if self.compat == "mergelm":
            mask_rate = round(1 - density, 12)  # 1 − 0.9 is a little less than 0.1
            return min(size, size - int(size * mask_rate) + 1)
        return kept_count(density, size)

    def _votes(self, stream: Stream, cuts: _Cuts) -> float:
        """Return the sum of the elected signs over the whole model."""
        total = 0.0
        for view in stream():
            spare = self._spare(replace(view.site, survey=cuts))
            for part in blocks(view.load()):
                total += float(elect(self._cut(part, cuts, spare), self.sign_method).double().sum())
        return total


def merge_untrimmed(deltas: Tensor, weight: PerSource, *, normalize: bool, sign_method: str) -> Tensor:
    """Return the steps of TIES that follow trimming, mergekit's: `deltas (n, *s)` to a task vector `(*s)`."""
    untrimmed = Ties(
        weight=weight,
        density=(1.0,) * len(weight),
        lambda_=1.0,
        normalize=normalize,
        sign_method=sign_method,
        merge_="mean",
        scope="tensor",
    )
    return untrimmed.combine(deltas)


METHOD: type[MergeMethod] = Ties
