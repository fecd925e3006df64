"""Layer swapping: the outer layers of one model, the inner layers of another, and the mean in between.

Bandarkar et al. 2024, https://arxiv.org/abs/2410.01335, whose widths are searched here, or relaxed to a
share of the outer model along the layers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Literal, Self, get_args

from pydantic import Field, model_validator

from evomerge.errors import SpaceError
from evomerge.recipe.layer_swap import EndsFrom, language_weights, layer_curve
from evomerge.recipe.layered import value_at
from evomerge.space.genes import GeneSpec
from evomerge.space.paths.form import Form, Layout, Names, Parts, chosen, listed
from evomerge.space.tables import Anchored, Number, WholeRange
from evomerge.types import Params

_USUAL = (4 / 32, 2 / 32)
"""Bottom and top as shares of all layers, where the search begins."""
_INSIDE = " inside "
_WIDTHS = ("bottom", "top", "transition")


class LayerSwap(Form):
    """Bottom and top layers of the language expert, a transition next to them, the task expert inside."""

    form: Literal["layer_swap"]
    """Outer layers of a language expert around the inner layers of a task expert."""
    task: Names | None = None
    """Who may be inside (default: each of the models)."""
    language: Names | None = None
    """Who may be outside (default: each of the models)."""
    bottom: WholeRange | Number | None = None
    """How many layers at the bottom are the language expert's (default: up to a third of all)."""
    top: WholeRange | Number | None = None
    """How many layers at the top are the language expert's (default: up to a third of all)."""
    transition: WholeRange | Number | None = None
    """How many layers next to them are the mean of both (default: up to 2)."""
    ends: EndsFrom | Annotated[list[EndsFrom], Field(min_length=1)] = Field(default=[*get_args(EndsFrom)])
    """Whose embedding, final norm and output head: one, or a list to choose from."""
    curve: Anchored | Literal["each"] | None = None
    """Instead of widths: each layer ("each"), or anchors along the layers, has a share of the language
    expert."""

    @model_validator(mode="after")
    def _widths_or_curve(self) -> Self:
        said = [f"`{name}`" for name in _WIDTHS if getattr(self, name) is not None]
        if self.curve and said:
            raise ValueError(f"must have widths or a `curve`, found {', '.join(said)} beside `curve`")
        return self

    @property
    def named(self) -> tuple[str, ...]:
        return (*listed(self.task), *listed(self.language))

    def genes(self, parts: Parts) -> tuple[GeneSpec, ...]:
        found = []
        if len(roles := self.roles(parts.names)) > 1:
            found.append(chosen("path/roles", roles))
        found += self._curve_genes(parts) if self.curve else self._width_genes(parts)
        if isinstance(self.ends, list) and len(self.ends) > 1:
            found.append(chosen("path/ends", self.ends))
        return tuple(found)

    def layout(self, params: Params, parts: Parts) -> Layout:
        task, language = str(params.get("path/roles", self.roles(parts.names)[0])).split(_INSIDE)
        weights = self._curve(params, parts) if self.curve else self._from_widths(params, parts)
        ends = params.get("path/ends", self.ends[0] if isinstance(self.ends, list) else self.ends)
        return Layout(swap=layer_curve(task, language, weights, ends_from=ends))  # type: ignore[arg-type]

    def tour(self, parts: Parts) -> Iterator[Layout]:
        for role in self.roles(parts.names):
            task, language = role.split(_INSIDE)
            yield Layout(swap=layer_curve(task, language, [0.5] * parts.layers, ends_from="average"))

    def roles(self, names: Sequence[str]) -> list[str]:
        """Return who of the models may be inside whom, in words."""
        tasks, languages = (listed(each) or names for each in (self.task, self.language))
        return [f"{task}{_INSIDE}{other}" for task in tasks for other in languages if task != other]

    def _width_genes(self, parts: Parts) -> list[GeneSpec]:
        self._check_room(parts)
        ranges, start = self._ranges(parts), _usual(parts.layers)
        return [
            GeneSpec(
                name=f"path/{name}", low=each.low, high=each.high, whole=True,
                start=min(max(start[name], each.low), each.high),
            )
            for name, each in ranges.items()
            if isinstance(each, WholeRange) and each.low < each.high
        ]  # fmt: skip

    def _ranges(self, parts: Parts) -> dict[str, WholeRange | int]:
        third, two = WholeRange(low=0, high=parts.layers // 3), WholeRange(low=0, high=2)
        asked = zip(_WIDTHS, (self.bottom, self.top, self.transition), (third, third, two), strict=True)
        return {name: usual if each is None else each for name, each, usual in asked}

    def _check_room(self, parts: Parts) -> None:
        """Raise `SpaceError` for widths that no model of so many layers can have."""
        for name, each in self._ranges(parts).items():
            most = each.high if isinstance(each, WholeRange) else each
            if most > parts.layers:
                raise SpaceError(f"`{name}` goes up to {most}, and the models have {parts.layers} layers")
        outer = [self._ranges(parts)[name] for name in ("bottom", "top")]
        least = sum(each.low if isinstance(each, WholeRange) else each for each in outer)
        if least > parts.layers:
            raise SpaceError(
                f"`bottom` and `top` take at least {least} layers, and the models have {parts.layers}"
            )

    def _from_widths(self, params: Params, parts: Parts) -> Sequence[float]:
        """Return the language expert's share of each layer; transitions give way where there is no room."""
        said = {
            name: int(params.get(f"path/{name}", each.low if isinstance(each, WholeRange) else each))
            for name, each in self._ranges(parts).items()
        }
        bottom = min(said["bottom"], parts.layers)
        top = min(said["top"], parts.layers - bottom)
        transition = min(said["transition"], (parts.layers - bottom - top) // 2)
        return language_weights(parts.layers, bottom=bottom, top=top, transition=transition)

    def _curve_genes(self, parts: Parts) -> list[GeneSpec]:
        widths = _usual(parts.layers)
        usual = language_weights(parts.layers, **widths)
        names = self._curve_names(parts)
        at = [round(i * parts.last / max(len(names) - 1, 1)) for i in range(len(names))]
        return [GeneSpec(name=name, start=usual[layer]) for name, layer in zip(names, at, strict=True)]

    def _curve_names(self, parts: Parts) -> list[str]:
        if isinstance(self.curve, Anchored):
            return [f"path/language/A{anchor}" for anchor in range(self.curve.anchors)]
        return [f"path/language/L{layer}" for layer in range(parts.layers)]

    def _curve(self, params: Params, parts: Parts) -> Sequence[float]:
        anchors = tuple(float(params[name]) for name in self._curve_names(parts))
        depths = (layer / max(parts.last, 1) for layer in range(parts.layers))
        return [float(value_at(anchors, tensor="", depth=depth) or 0.0) for depth in depths]


def _usual(layers: int) -> dict[str, int]:
    """Return the widths to begin with."""
    bottom, top = (round(share * layers) for share in _USUAL)
    return {"bottom": bottom, "top": top, "transition": min(1, (layers - bottom - top) // 2)}
