"""DARE-TIES: drop entries at random, then elect signs and average what agrees.

DARE (https://arxiv.org/abs/2311.03099) in the place of TIES' trimming (https://arxiv.org/abs/2306.01708), as
in mergekit and PEFT. The authors of DARE (MergeLM) also trim what it left to a fifth over the whole model;
after dropping nine tenths that changes nothing, for the cut is zero and all that reach it stay.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from evomerge.merge.kernels import loops
from evomerge.merge.kernels.blocks import AtHand, merge_blocks
from evomerge.merge.kernels.consensus import SIGN_METHOD, VOTE_WEIGHT
from evomerge.merge.kernels.dropping import CHANCE_TO_STAY, MASK_STRATEGY, RESCALE, Dropping, draws
from evomerge.merge.kernels.loops import Loop
from evomerge.merge.kernels.weighting import LAMBDA, scaled
from evomerge.merge.method import (
    BaseUse,
    Cost,
    Ignored,
    MergeBlock,
    MergeMethod,
    Operand,
    Site,
    Stream,
    View,
    Whole,
)
from evomerge.merge.methods.ties import Ties
from evomerge.parameters import Choice, Gene, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class DareTies:
    """Randomly dropped task vectors, merged by an elected sign."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "mergekit", "peft", "official", "mergelm")
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "elementwise"

    weight: Annotated[PerSource, VOTE_WEIGHT]
    density: Annotated[PerSource, CHANCE_TO_STAY]
    lambda_: Annotated[float, LAMBDA]
    rescale: Annotated[str, RESCALE]
    mask_strategy: Annotated[str, MASK_STRATEGY]
    trim_density: Annotated[
        PerSource,
        Gene(
            low=0.1,
            high=1.0,
            default=1.0,
            meaning="share kept by trimming what was dropped from, largest first",
            searched=False,
            least=0.0,
            most=1.0,
            also={"mask_rate": lambda rate: round(1 - rate, 12)},
            under={"official": 0.2, "mergelm": 0.2},
        ),
    ]
    normalize: Annotated[
        bool,
        Choice(
            options=(True, False),
            default=False,
            meaning="divide by the weights that agree; PEFT and the authors always do, by their number",
        ),
    ]
    sign_method: Annotated[str, SIGN_METHOD]
    compat: str = "evomerge"

    def __post_init__(self) -> None:
        _ = self._ties  # refuses weights where the semantics have none

    @property
    def ignores(self) -> frozenset[Ignored]:
        rest = self._ties.ignores
        return rest - {"seed"} if draws(self.density, self.mask_strategy) else rest

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Merge `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        if (merge := self.begin(site, AtHand(operands=operands))) is not None:
            return merge_blocks(merge, base, operands)
        dropped = self._dropping.drop(operands, site)
        return scaled(self._ties.merge_vectors(dropped, site), self.lambda_).add_(base)

    def begin(self, site: Site, whole: Whole) -> MergeBlock | None:
        """Return what merges a tensor's blocks, None if a step takes all of a task vector."""
        dropped = self._dropping.begin(site)
        trims = any(share < 1 for share in self.trim_density)
        if dropped is None or (trims and site.survey is None):
            return None
        vectors = self._ties.begin_vectors(site, whole)
        if vectors is None:
            return None

        def merge(base: Tensor | None, operands: Tensor, start: int) -> Tensor:
            assert base is not None
            return scaled(vectors(dropped(operands, start), start), self.lambda_).add_(base)

        return merge

    def loop(self, site: Site, whole: Whole) -> Loop | None:
        """Return the loop that merges a tensor by mergekit's rules after dropping, untrimmed."""
        del whole
        rest = self._ties
        usual = rest.compat in ("evomerge", "mergekit") and self.sign_method == "total" and not rest.normalize
        dropping = self._dropping.loop_numbers(site)
        if dropping is None or not usual or any(share < 1 for share in self.trim_density):
            return None
        return Loop(
            function=loops.dare_ties, numbers=(*loops.float_numbers(self.weight, self.lambda_), *dropping)
        )

    def survey_key(self) -> Hashable | None:
        trimming = self._ties.survey_key()
        return (trimming, self.density, self.rescale, self.mask_strategy) if trimming else None

    def survey(self, stream: Stream) -> Any:
        """Find what trimming over the whole model needs to know of the dropped task vectors."""

        def dropped() -> Iterator[View]:
            for view in stream():
                yield replace(view, load=partial(self._load, view))

        return self._ties.survey(dropped)

    def _load(self, view: View) -> Tensor:
        return self._dropping.drop(view.load(), view.site)

    @property
    def _dropping(self) -> Dropping:
        return Dropping(
            density=self.density, rescale=self.rescale, compat=self.compat, strategy=self.mask_strategy
        )

    @property
    def _ties(self) -> Ties:
        """What follows the dropping. The authors' is MergeLM's: it is their code."""
        return Ties(
            weight=self.weight,
            density=self.trim_density,
            lambda_=1.0,
            normalize=self.normalize or self.compat in ("peft", "official", "mergelm"),
            sign_method=self.sign_method,
            merge_="mean",
            scope="auto",
            compat="mergelm" if self.compat == "official" else self.compat,
        )


METHOD: type[MergeMethod] = DareTies
