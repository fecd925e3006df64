"""The recipe: frozen, canonical, hashable."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from evomerge.errors import RecipeError, unknown
from evomerge.types import Value

MODULES = ("attn", "mlp", "rest", "embed", "head")
"""Module groups. `attn`, `mlp` and `rest` (norms and the like) lie inside layers; `embed` is all that
comes before the first layer, `head` all that comes after the last: final norm and output head."""

IN_LAYERS = MODULES[:3]

Setting: TypeAlias = Value | Mapping[str, float]
"""A parameter's value: one for all sources, or one per source by the source's name."""


@dataclass(frozen=True, kw_only=True)
class ModelRef:
    """A source model: a folder, a hub id or `zoo:NAME`; `digest` pins its content once resolved."""

    source: str
    revision: str | None = None
    digest: str | None = None


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

    A tensor takes the parameters of the first group that covers it, over those of `params`, over
    the method's defaults.
    """

    method: str
    sources: tuple[str, ...]
    base: str | None = None
    params: Mapping[str, Setting] = field(default_factory=dict)
    groups: tuple[Group, ...] = ()
    compat: str = "evomerge"

    def settings(self, layer: int | None, module: str) -> dict[str, Setting]:
        """Return the parameters in force for a tensor of `module` in `layer`."""
        for group in self.groups:
            if group.covers(layer, module):
                return {**self.params, **group.params}
        return dict(self.params)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What to build. `dtype` is that of the merged tensors (None: as the template's).

    `template` is the model that gives the tensor names, the config and the tokenizer (empty: the base,
    or the first source). If it does not see and one of the others does, that one gives them instead.
    """

    models: Mapping[str, ModelRef]
    merges: Mapping[str, Merge]
    dtype: str | None = None
    seed: int = 0
    template: str = ""

    def __post_init__(self) -> None:
        if len(self.merges) != 1:
            raise RecipeError(f"a recipe without a path needs exactly one merge, found {len(self.merges)}")
        if not self.merge.sources:
            raise RecipeError("a merge needs at least one source, found none")
        object.__setattr__(self, "template", self.template or self.usual_template)
        for name in self.used:
            if name not in self.models:
                raise RecipeError(unknown("model", name, self.models))

    def __hash__(self) -> int:
        return hash(self.key)

    @property
    def merge(self) -> Merge:
        """The only merge."""
        return next(iter(self.merges.values()))

    @property
    def usual_template(self) -> str:
        """The template of a recipe that names none."""
        return self.merge.base or self.merge.sources[0]

    @property
    def used(self) -> tuple[str, ...]:
        """The models that are read, each once, the template first."""
        base = (self.merge.base,) if self.merge.base else ()
        return tuple(dict.fromkeys((self.template, *base, *self.merge.sources)))

    @property
    def key(self) -> str:
        """Sixteen hex digits that two recipes share exactly when they ask for the same tensors.

        Names of merges and of unused models do not matter; a digest stands for its source.
        """
        models = {
            name: ref.digest or [ref.source, ref.revision]
            for name, ref in self.models.items()
            if name in self.used
        }
        content = [models, plain(self.merge), self.dtype, self.seed]
        if self.template != self.usual_template:
            content.append(self.template)
        text = json.dumps(content, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()[:16]


def plain(value: Any) -> Any:
    """Return `value` as dicts, lists and scalars, floats that are whole numbers included as floats."""
    if isinstance(value, Group | Merge | ModelRef | Recipe):
        return {key: plain(each) for key, each in vars(value).items()}
    if isinstance(value, Mapping):
        return {str(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple | list):
        return [plain(each) for each in value]
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value
