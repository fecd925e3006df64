"""What a merge method is: a frozen dataclass of parameters with one pure function on tensors.

Methods are written in tensor methods (`delta.abs()`, not `torch.abs(delta)`), so that a space can read
what they declare without loading torch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol, TypeAlias, runtime_checkable

from evomerge.merge.kernels import draws
from evomerge.seeds import derive
from evomerge.types import Statistic, Value

if TYPE_CHECKING:
    from torch import Tensor

    from evomerge.merge.kernels.loops import Loop
    from evomerge.merge.kernels.trimming import Cut

Operand: TypeAlias = Literal["deltas", "weights"]
BaseUse: TypeAlias = Literal["needed", "optional", "unused"]
Cost: TypeAlias = Literal["elementwise", "norms", "ranks", "decomposition"]
"""What dominates a merge: reading and writing; sums over each tensor; order statistics; an SVD or a solve."""

Ignored: TypeAlias = Literal["order", "zero weight", "seed"]
"""The order of the sources; whether a source of weight 0 is among them; the seed of random draws."""

DRAWS_NOTHING: frozenset[Ignored] = frozenset({"seed"})
COMMUTES: frozenset[Ignored] = frozenset({"order", "seed"})
SUMS: frozenset[Ignored] = frozenset({"order", "zero weight", "seed"})

EVERYONES = ("evomerge", "mergekit", "official", "peft", "mergelm", "fusion_bench", "regmean_repo")
"""The implementations whose semantics `compat` can name; a method on which they agree takes any of them."""


@dataclass(frozen=True, kw_only=True)
class Site:
    """Where an operator works: one tensor of one merge, with its own random stream.

    `embedding` tells whether the tensor is a table of vectors, one row per token or position. `statistics`
    holds, for a method that needs them, what was measured on each source (None: nothing for this tensor);
    `inputs_first` says that this weight is stored `(in, out)`, as GPT-2 stores its projections.
    """

    tensor: str
    sources: tuple[str, ...]
    seed: int
    embedding: bool = False
    survey: Any = None
    statistics: tuple[Tensor | None, ...] = ()
    inputs_first: bool = False
    keep_masks: tuple[Tensor, ...] | None = None

    def uniform(self, source: int, like: Tensor, start: int = 0) -> Tensor:
        """Return draws from (0, 1) shaped as `like`, the same whatever the device, block or order.

        They depend on the seed, the source, the tensor's name and the entry's place only, `start` being
        that of the first entry; keeping where `draw < density` therefore nests the masks of growing
        densities. Given masks replace the draws.
        """
        if self.keep_masks is not None:
            return 1.0 - self._mask(source, like, start)
        return draws.uniform(self._key(source), start, like)

    def kept(self, source: int, like: Tensor, chance: float, start: int = 0) -> Tensor:
        """Return a mask shaped as `like`, 1 where the draw is below `chance` and else 0."""
        if self.keep_masks is not None:
            return self._mask(source, like, start)
        return draws.kept(self._key(source), start, like, chance)

    def keys(self) -> list[tuple[int, int]]:
        """Return both halves of each source's key, as torch's int32 has them; given masks have none."""
        return [draws.halves(self._key(i)) for i in range(len(self.sources))]

    def _key(self, source: int) -> int:
        return derive(self.seed, self.sources[source], self.tensor)

    def _mask(self, source: int, like: Tensor, start: int) -> Tensor:
        assert self.keep_masks is not None
        mask = self.keep_masks[source].reshape(-1)[start : start + like.numel()]
        return mask.to(like).reshape(like.shape)


@dataclass(frozen=True, kw_only=True)
class View:
    """One tensor of the merge as a survey sees it.

    `load` reads the operands `(n, *shape)` anew each time; whoever calls it may overwrite them.
    """

    site: Site
    shape: tuple[int, ...]
    load: Callable[[], Tensor]


Stream: TypeAlias = Callable[[], Iterator[View]]
"""Call it for one more pass over the merge's tensors, in a fixed order."""


class MergeMethod(Protocol):
    """A merge operator. Its declared fields are its parameters; see `evomerge.parameters`."""

    on: ClassVar[Operand]
    """Whether `merge` gets task vectors (source minus base) or the sources' weights themselves."""
    base: ClassVar[BaseUse]
    """Whether it needs a base; with "optional", task vectors are weights where there is none."""
    sources: ClassVar[tuple[int, int | None]]
    """The least and the greatest number of sources (None: any)."""
    compats: ClassVar[tuple[str, ...]]
    """Whose semantics `compat` may select."""
    additive: ClassVar[Mapping[str, Value] | None]
    """Settings under which the method is base plus Σ wᵢ δᵢ, up to rounding; None if it never is."""
    cost: ClassVar[Cost]

    @property
    def compat(self) -> str:
        """Whose semantics apply."""

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Merge one tensor: `base (*s)` or None and `operands (n, *s)`, float32, to `(*s)` float32."""


class Whole(Protocol):
    """What a method may learn of a tensor's operands as a whole before it sees any block of them."""

    def cut(self, source: int, count: int, *, every_tie: bool = False) -> Cut:
        """Return where operand `source` is cut so that its `count` largest entries stay."""

    def ends_of_ties(self, rows: Sequence[Sequence[Cut]]) -> list[list[int]]:
        """Return the places before which what equals a cut stays, for each row of all operands' cuts."""

    @property
    def size(self) -> int:
        """How many entries the tensor has."""


MergeBlock: TypeAlias = "Callable[[Tensor | None, Tensor, int], Tensor]"
"""Merges the next block, `base (b)` or None and `operands (n, b)` from an entry (even) on, to `(b)`."""


Vectors: TypeAlias = "Callable[[Tensor, int], Tensor]"
"""What a method first makes of the next block of task vectors, `(n, b)` from an entry on."""


@runtime_checkable
class Streaming(Protocol):
    """A method that may merge a tensor block by block, each small enough to stay in the cache."""

    def begin(self, site: Site, whole: Whole) -> MergeBlock | None:
        """Return what merges the tensor's blocks, in their order; None if it takes all at once.

        It must not write to the operands, and what it returns is read before the next block is merged.
        """


@runtime_checkable
class Looping(Protocol):
    """A streaming method whose steps may be compiled to one loop, with the same bits."""

    def loop(self, site: Site, whole: Whole) -> Loop | None:
        """Return the loop that merges a tensor; None under parameters for which there is none."""


def taken(method: type[MergeMethod], count: int) -> str | None:
    """Return None if the method takes `count` sources, else how many it takes, in words."""
    least, most = method.sources
    if least <= count and (most is None or count <= most):
        return None
    if most is None:
        return f"at least {least}"
    return f"exactly {least}" if least == most else f"{least} to {most}"


@runtime_checkable
class Surveying(Protocol):
    """A method that may need to see the whole model before it can merge a tensor of it."""

    def survey_key(self) -> Hashable | None:
        """Return what the survey depends on, or None if these parameters need no survey."""

    def survey(self, stream: Stream) -> Any:
        """Return what `merge` will find in `site.survey`. Holds one tensor at a time."""


@runtime_checkable
class Informed(Protocol):
    """A method that merges by what was measured on each source; `merge` finds it in `site.statistics`."""

    statistic: ClassVar[Statistic]


@runtime_checkable
class Indifferent(Protocol):
    """A method that says what makes no difference to it; to any other, everything may.

    What holds for some parameters only is a property. Methods without a source left give the base.
    """

    @property
    def ignores(self) -> frozenset[Ignored]:
        """What may change without the merge changing, but for the rounding of its sums."""


@runtime_checkable
class Averaging(Protocol):
    """A method that is Σ wᵢ θᵢ over Σ wᵢ under some settings, up to rounding."""

    average: ClassVar[Mapping[str, Value]]


def ignored_by(method: MergeMethod) -> frozenset[Ignored]:
    """Return what makes no difference to the method under its parameters, as far as it says."""
    return method.ignores if isinstance(method, Indifferent) else frozenset()


def statistic_of(method: type[MergeMethod]) -> Statistic | None:
    """Return what the method needs measured on each source, or None."""
    return method.statistic if isinstance(method, Informed) else None


def survey_key_of(method: MergeMethod) -> Hashable | None:
    """Return what the method's survey depends on, or None if it needs none."""
    return method.survey_key() if _is(type(method), Surveying) else None  # type: ignore[attr-defined]


def streaming(method: MergeMethod) -> Streaming | None:
    """Return the method if it may merge block by block."""
    return method if _is(type(method), Streaming) else None  # type: ignore[return-value]


def looping(method: MergeMethod) -> Looping | None:
    """Return the method if its steps may be compiled to one loop."""
    return method if _is(type(method), Looping) else None  # type: ignore[return-value]


@cache  # to ask a protocol takes longer than all else that is planned for a tensor
def _is(kind: Any, protocol: Any) -> bool:
    return issubclass(kind, protocol)
