"""The data-flow space of the paper: a switch for every layer of every model, and a scale for each that is on.

Akiba et al. 2024, https://arxiv.org/abs/2403.13187: the layers of all models are laid out one model after
another, several times over, and each place of that row is passed or left out. A place stands for on where its
gene is above 0, as there. The range of a gene says how likely that is: the places that make up the first
model are likely on, all others likely off, so every sampler begins near "all of the first model".
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from statistics import NormalDist
from typing import Literal, TypeAlias

from pydantic import Field

from evomerge.recipe import Slot
from evomerge.space.genes import GeneSpec
from evomerge.space.paths.form import Layout, Parts, Stack
from evomerge.space.tables import Count, Scales
from evomerge.types import Params

Place: TypeAlias = tuple[int, str, int]
"""Which round of the row, which model, which of its layers."""

_CHANGES = 1
"""So many layers of the first model a random candidate lacks, and so many others it has, on average."""
_OFTENEST = 1 / 3
"""A change is rare also where there are few layers: at a half, a place would begin neither on nor off."""
_SIGMA = 1 / 6
"""CMA-ES's first standard deviation: it, too, begins with about as many changes."""


class Slots(Stack):
    """A switch per place of the row of all layers of all models, and a scale per place that is on.

    Where more than `most` are on, those that are so by the least stay off.
    """

    form: Literal["slots"]
    """A switch for every layer of every model."""
    repeats: Count = 2
    """How many times over the row of all layers is laid out, so that layers can be passed again."""
    scale: Scales | float = Field(default=Scales(low=0.5, high=1.5))
    """What multiplies the hidden state that enters a layer: a range, or a number."""

    def genes(self, parts: Parts) -> tuple[GeneSpec, ...]:
        self.check_room(parts)
        found = []
        for place in self._row(parts):
            if not self._is_pinned(place, parts):
                found.append(self._switch(place, parts))
            found += self.scale_gene(_name("scale", place))
        return (*found, *self.end_genes())

    def layout(self, params: Params, parts: Parts) -> Layout:
        path = tuple(
            Slot(model=model, layer=layer, scale=self.scale_at(_name("scale", (turn, model, layer)), params))
            for turn, model, layer in self._on(params, parts)
        )
        return Layout(path=path, ends=self.ends(params, parts))

    def idle(self, params: Params, parts: Parts) -> Iterable[str]:
        if not isinstance(self.scale, Scales):
            return ()
        on = set(self._on(params, parts))
        return [_name("scale", place) for place in self._row(parts) if place not in on]

    def _row(self, parts: Parts) -> Iterator[Place]:
        """Yield every place, bottom to top; a first model's last layer that is pinned is at the end."""
        end = (1, parts.names[0], parts.last)
        for turn in range(1, self.repeats + 1):
            for name in parts.names:
                for layer in range(parts.layers):
                    if not (self._is_pinned(end, parts) and (turn, name, layer) == end):
                        yield turn, name, layer
        if self._is_pinned(end, parts):
            yield end

    def _is_pinned(self, place: Place, parts: Parts) -> bool:
        turn, name, layer = place
        return self.pinned and turn == 1 and name == parts.names[0] and layer in (0, parts.last)

    def _switch(self, place: Place, parts: Parts) -> GeneSpec:
        turn, name, _ = place
        usual = turn == 1 and name == parts.names[0]
        others = parts.layers if usual else parts.layers * (len(parts.names) * self.repeats - 1)
        rare = min(_OFTENEST, _CHANGES / max(others, 1))
        low = -rare if usual else rare - 1
        ahead = _SIGMA * NormalDist().inv_cdf(1 - rare)
        start = min(ahead, 1 - rare) if usual else max(-ahead, rare - 1)
        return GeneSpec(name=_name("on", place), low=low, high=low + 1, start=start)

    def _on(self, params: Params, parts: Parts) -> list[Place]:
        """Return the places that are on, bottom to top: at least one, at most as many as may be."""
        row = list(self._row(parts))
        strength = {place: self._strength(place, params, parts) for place in row}
        ranked = sorted(row, key=lambda place: -strength[place])
        count = sum(each > 0 for each in strength.values())
        kept = set(ranked[: min(max(count, 1), self.longest(parts))])
        return [place for place in row if place in kept]

    def _strength(self, place: Place, params: Params, parts: Parts) -> float:
        """Return by how much of its way a place is on (above 0) or off; a pinned one is wholly on."""
        if self._is_pinned(place, parts):
            return 2.0
        gene, value = self._switch(place, parts), float(params[_name("on", place)])
        return value / gene.high if value > 0 else value / -gene.low


def _name(what: str, place: Place) -> str:
    turn, model, layer = place
    return f"path/{what}/{turn}/{model}/L{layer}"
