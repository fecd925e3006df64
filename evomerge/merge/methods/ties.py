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
from evomerge.merge.kernels import loops
from evomerge.merge.kernels.blocks import AtHand, blocks, merge_blocks, merge_vectors
from evomerge.merge.kernels.consensus import (
    SIGN_METHOD,
    VOTE_WEIGHT,
    agreeing,
    decided,
    elect,
    is_zero,
    strongest,
    total,
)
from evomerge.merge.kernels.loops import Loop
from evomerge.merge.kernels.trimming import Cut, Trimmer, global_cuts, kept_count, share_out, trim_all
from evomerge.merge.kernels.weighting import scale_rows
from evomerge.merge.method import (
    COMMUTES,
    SUMS,
    BaseUse,
    Cost,
    Ignored,
    MergeBlock,
    MergeMethod,
    Operand,
    Site,
    Stream,
    Vectors,
    Whole,
)
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
        if (merge := self.begin(site, AtHand(operands=operands))) is not None:
            return merge_blocks(merge, base, operands)
        return self.merge_vectors(operands, site).mul_(self.lambda_).add_(base)

    def begin(self, site: Site, whole: Whole) -> MergeBlock | None:
        """Return what merges a tensor's blocks, None if a majority is that of the whole tensor."""
        vectors = self.begin_vectors(site, whole)
        if vectors is None:
            return None

        def merge(base: Tensor | None, operands: Tensor, start: int) -> Tensor:
            assert base is not None
            return vectors(operands, start).mul_(self.lambda_).add_(base)

        return merge

    def loop(self, site: Site, whole: Whole) -> Loop | None:
        """Return the loop that merges a tensor by mergekit's rules, trimmed by itself."""
        del site
        usual = _RULES[self.compat] == _Rules() and not self._whole_model
        if not usual or self.sign_method != "total" or self.merge_ == "max":
            return None
        cuts = [whole.cut(i, self._count(density, whole.size)) for i, density in enumerate(self.density)]
        mean = self.merge_ == "mean" and self.normalize
        return Loop(
            function=loops.ties if mean else loops.ties_sum,
            numbers=(*loops.float_numbers(self.weight, self.lambda_), *loops.cut_numbers(whole, cuts)),
        )

    def merge_vectors(self, deltas: Tensor, site: Site) -> Tensor:
        """Trim, elect and merge `deltas (n, *s)` to one task vector `(*s)`, before λ."""
        at_hand = AtHand(operands=deltas)
        if (vectors := self.begin_vectors(site, at_hand)) is not None:
            return merge_vectors(vectors, deltas)
        return self.combine(trim_all(self._trimmers(site, at_hand), deltas))

    def begin_vectors(self, site: Site, whole: Whole) -> Vectors | None:
        """Return what trims, elects and merges consecutive blocks `(n, b)` to `(b)`, before λ.

        None if a majority is that of the whole tensor.
        """
        if _RULES[self.compat].majority and site.survey is None:
            return None
        trimmers = self._trimmers(site, whole)

        def vectors(deltas: Tensor, start: int) -> Tensor:
            del start
            return self.combine(trim_all(trimmers, deltas), site.survey)

        return vectors

    def combine(self, deltas: Tensor, survey: _Cuts | None = None) -> Tensor:
        """Elect and merge `deltas (n, *s)`, trimmed already and written over, to one task vector `(*s)`."""
        rules = _RULES[self.compat]
        voters = deltas if rules.weights_vote else deltas.clone()
        weighted = scale_rows(deltas, self.weight)
        sign = elect(voters, self.sign_method)
        sign = decided(sign, self._undecided(sign, survey))
        agree = agreeing(voters, sign)
        if self.merge_ == "max":
            return strongest(weighted, agree, sign)
        merged = total(weighted.mul_(agree))
        if self.merge_ == "sum" or not self.normalize:
            return merged
        if rules.divisor == "count":
            return merged.div_(total(agree).clamp_(min=1))
        divisor = total(scale_rows(agree, self.weight))
        return merged.div_(divisor.add_(is_zero(divisor)))

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

    def _trimmers(self, site: Site, whole: Whole) -> list[Trimmer]:
        """Return what trims each source's vector, by itself or at the whole model's cuts."""
        if self._whole_model:
            return _at_cuts(site.survey, site.tensor)
        every_tie = _RULES[self.compat].whole_model
        counts = (self._count(density, whole.size) for density in self.density)
        return [Trimmer(whole.cut(i, count, every_tie=every_tie)) for i, count in enumerate(counts)]

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
            trimmers = _at_cuts(cuts, view.site.tensor)
            for part in blocks(view.load()):
                total += float(elect(trim_all(trimmers, part), self.sign_method).double().sum())
        return total


def _at_cuts(cuts: _Cuts, tensor: str) -> list[Trimmer]:
    """Return what trims each source's vector at the whole model's cuts; without `spare`, all ties stay."""
    spare = cuts.spare[tensor] if cuts.spare else (None,) * len(cuts.thresholds)
    found = zip(cuts.thresholds, spare, strict=True)
    return [Trimmer(Cut(value=value, ties=ties)) for value, ties in found]


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
