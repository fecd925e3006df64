"""Fewer layers, or some of them twice: layers ranked by their influence, and genes that change the ranks.

Layers that hardly change the hidden states can go (ShortGPT, https://arxiv.org/abs/2403.03853), and are those
that bear being passed twice. The influence is measured beforehand (`evomerge measure influence`) and named
where the source stands; without it the genes alone rank the layers, the upper ones first.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from typing import Annotated, Literal

from pydantic import Field

from evomerge.errors import SpaceError
from evomerge.recipe import Ends, Slot
from evomerge.recipe.path import LONGEST
from evomerge.space.genes import GeneSpec
from evomerge.space.paths.form import Form, Layout, Parts, chosen
from evomerge.space.tables import Number, WholeRange
from evomerge.types import Params

_OF = "path/of"


class _Ranked(Form):
    """So many (`count`) of the layers that matter least are treated in a way of their own.

    A gene per layer, 0 to 1, is added to its influence's rank among the layers, 0 to 1 as well. Of several
    `models`, one is chosen.
    """

    count: WholeRange | Number | None = None
    """How many layers (default: none up to a quarter of them)."""
    pinned: bool = True
    """Whether the first and the last layer stay as they are."""

    def genes(self, parts: Parts) -> tuple[GeneSpec, ...]:
        found = [chosen(_OF, parts.names)] if len(parts.names) > 1 else []
        count = self._count(parts)
        most = count.high if isinstance(count, WholeRange) else count
        if most > len(self._free(parts)) or most >= parts.layers:
            kept = " besides its first and last" if self.pinned else " if one is to be left"
            raise SpaceError(
                f"`count` goes up to {most}, and a model of {parts.layers} layers has "
                f"{min(len(self._free(parts)), parts.last)}{kept}"
            )
        longest = parts.layers + most * (self._passes(least=True) - 1)
        if longest > LONGEST:
            raise SpaceError(
                f"`count` and `times` make stacks of up to {longest} layers, and the longest path has "
                f"{LONGEST}"
            )
        if isinstance(count, WholeRange) and count.low < count.high:
            found.append(
                GeneSpec(name=self._counted, low=count.low, high=count.high, whole=True, start=count.low)
            )
        if most:
            found += [GeneSpec(name=_kept(layer)) for layer in self._free(parts)]
        return tuple(found)

    def layout(self, params: Params, parts: Parts) -> Layout:
        model, many = str(params.get(_OF, parts.names[0])), self._many(params, parts)
        ranks = self._ranks(model, parts)
        worth = {layer: float(params.get(_kept(layer), 0.5)) + ranks[layer] for layer in self._free(parts)}
        least = sorted(worth, key=lambda layer: (worth[layer], -layer))[:many]
        path = [
            Slot(model=model, layer=layer)
            for layer in range(parts.layers)
            for _ in range(self._passes(least=layer in least))
        ]
        return Layout(path=tuple(path), ends=Ends(embed=model, head=model))

    def tour(self, parts: Parts) -> Iterator[Layout]:
        for name in parts.names:
            yield Layout(path=parts.whole(name), ends=Ends(embed=name, head=name))

    def idle(self, params: Params, parts: Parts) -> Iterable[str]:
        free = self._free(parts)
        return [_kept(layer) for layer in free] if self._many(params, parts) in (0, len(free)) else []

    @property
    @abstractmethod
    def _counted(self) -> str:
        """The gene that says how many layers."""

    @abstractmethod
    def _passes(self, *, least: bool) -> int:
        """Return how often a layer is passed that is among the least, or is not."""

    def _count(self, parts: Parts) -> WholeRange | int:
        return WholeRange(low=0, high=max(1, parts.layers // 4)) if self.count is None else self.count

    def _many(self, params: Params, parts: Parts) -> int:
        """Return how many layers are among the least."""
        count = self._count(parts)
        return int(params.get(self._counted, count.low if isinstance(count, WholeRange) else count))

    def _free(self, parts: Parts) -> list[int]:
        """Return the layers that may be among the least."""
        return list(range(1, parts.last) if self.pinned else range(parts.layers))

    def _ranks(self, model: str, parts: Parts) -> list[float]:
        """Return where each layer's influence stands among the others', from 0 to 1; the same if unknown."""
        influence = parts.influence.get(model)
        if influence is None:
            return [0.0] * parts.layers
        order = sorted(range(parts.layers), key=lambda layer: influence[layer])
        return [order.index(layer) / max(parts.last, 1) for layer in range(parts.layers)]


class Prune(_Ranked):
    """`count` layers are left out (by default up to a quarter of them), those that matter least."""

    form: Literal["prune"]
    """Which layers can go."""

    @property
    def _counted(self) -> str:
        return "path/removed"

    def _passes(self, *, least: bool) -> int:
        return 0 if least else 1


class Repeat(_Ranked):
    """`count` layers are passed `times` times in a row (by default up to a quarter of them, twice)."""

    form: Literal["repeat"]
    """Which layers are passed again."""
    times: Annotated[int, Field(ge=2)] = 2
    """How often those are passed."""

    @property
    def _counted(self) -> str:
        return "path/repeated"

    def _passes(self, *, least: bool) -> int:
        return self.times if least else 1


def _kept(layer: int) -> str:
    return f"path/keep/L{layer}"
