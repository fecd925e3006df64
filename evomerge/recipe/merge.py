"""One merge of a recipe: a method, what it merges, and its parameters by group of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from evomerge.errors import RecipeError, unknown
from evomerge.recipe.layered import Filtered, Layered, relative_depth, value_at
from evomerge.types import Value

MODULES = ("attn", "mlp", "rest", "embed", "head")
"""Module groups. `attn`, `mlp` and `rest` (norms and the like) lie inside layers; `embed` is all that
comes before the first layer, `head` all that comes after the last: final norm and output head."""

IN_LAYERS = MODULES[:3]

Setting: TypeAlias = Layered | Mapping[str, Layered]
"""A parameter's value: one for all sources, or one per source by the source's name."""
Settled: TypeAlias = Value | Mapping[str, Value | None] | None
"""A parameter's value at one tensor; None where only filters stand and none of them matches."""


@dataclass(frozen=True, kw_only=True)
class Group:
    """The parameters of the tensors in some layers (both ends included; None: all) and modules."""

    modules: tuple[str, ...]
    params: Mapping[str, Setting]
    layers: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        for module in self.modules:
            if module not in MODULES:
                raise RecipeError(unknown("module group", module, MODULES))
        if self.layers is not None and not 0 <= self.layers[0] <= self.layers[1]:
            raise RecipeError(f"layers are [first, last] counted from 0, found {list(self.layers)}")

    def covers(self, layer: int | None, module: str) -> bool:
        """Return whether a tensor of `module` in `layer` (None: outside the layers) belongs here."""
        if module not in self.modules:
            return False
        return layer is None or self.layers is None or self.layers[0] <= layer <= self.layers[1]


@dataclass(frozen=True, kw_only=True)
class Merge:
    """A virtual model: `method` applied to `sources` over `base`, with parameters by group.

    Sources and base are models or other merges of the recipe. A tensor takes the parameters of the first
    group that covers it, over those of `params`, over the method's defaults.
    """

    method: str
    sources: tuple[str, ...]
    base: str | None = None
    params: Mapping[str, Setting] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    compat: str = "evomerge"

    @property
    def models(self) -> tuple[str, ...]:
        """The models and merges it reads, each once: its base, if it has one, and its sources."""
        return tuple(dict.fromkeys((*((self.base,) if self.base else ()), *self.sources)))

    @property
    def filters(self) -> tuple[Filtered, ...]:
        """The filters in its parameters, those of its groups included."""
        tables = [self.params, *(group.params for group in self.groups)]
        settings = [value for params in tables for value in params.values()]
        layered = [
            value for each in settings for value in (each.values() if isinstance(each, Mapping) else [each])
        ]
        entries = (entry for value in layered if isinstance(value, tuple) for entry in value)
        return tuple(entry for entry in entries if isinstance(entry, Filtered))

    def by_place(self) -> Merge:
        """Return the merge with values by source under the places of the sources, whatever their names."""
        place = {source: str(i) for i, source in enumerate(self.sources)}

        def placed(params: Mapping[str, Setting]) -> dict[str, Setting]:
            return {
                name: {place.get(source, source): each for source, each in setting.items()}
                if isinstance(setting, Mapping)
                else setting
                for name, setting in params.items()
            }

        groups = tuple(replace(group, params=placed(group.params)) for group in self.groups)
        return replace(self, params=placed(self.params), groups=groups)

    def settings(self, tensor: str, layer: int | None, module: str, layers: int) -> dict[str, Settled]:
        """Return the parameters in force at `tensor` of `module` in `layer` of a model of so many `layers`.

        Anchors stretch over the whole model, or over the layers of the group in which they stand.
        """
        depth = relative_depth(layer, 0, layers - 1)
        settled = _settled(self.params, tensor, depth)
        for group in self.groups:
            if group.covers(layer, module):
                first, last = group.layers or (0, layers - 1)
                return settled | _settled(group.params, tensor, relative_depth(layer, first, last))
        return settled


def _settled(params: Mapping[str, Setting], tensor: str, depth: float) -> dict[str, Settled]:
    """Return what each of `params` is at a tensor of relative `depth`."""
    return {
        name: {source: value_at(each, tensor=tensor, depth=depth) for source, each in setting.items()}
        if isinstance(setting, Mapping)
        else value_at(setting, tensor=tensor, depth=depth)
        for name, setting in params.items()
    }
