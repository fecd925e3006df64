"""What recipes do to each layer and module, as rows of tables; recipes are what was built, genes are not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from evomerge.recipe import Merge, Recipe
from evomerge.recipe.merge import IN_LAYERS
from evomerge.types import Value

_TENSORS = {
    "attn": "model.layers.{}.self_attn.q_proj.weight",
    "mlp": "model.layers.{}.mlp.down_proj.weight",
    "rest": "model.layers.{}.input_layernorm.weight",
    "embed": "model.embed_tokens.weight",
    "head": "lm_head.weight",
}
"""A tensor of each module group, for settings that go by the tensor's name."""


@dataclass(frozen=True, kw_only=True)
class Coefficient:
    """A parameter of a merge at one place: a layer (None: outside of them) and a module group.

    `source` is None where the parameter has one value for all sources.
    """

    merge: str
    method: str
    parameter: str
    source: str | None
    layer: int | None
    module: str
    value: Value


@dataclass(frozen=True, kw_only=True)
class Step:
    """A layer of a stack: which slot from the bottom, whose layer, and by what its input is scaled."""

    slot: int
    model: str
    layer: int
    scale: float


def coefficients(recipe: Recipe, layers: int) -> Iterator[Coefficient]:
    """Yield all that the merges of a recipe set, bottom to top, for models of so many `layers`."""
    for name, merge in recipe.merges.items():
        yield from merge_coefficients(name, merge, layers)


def merge_coefficients(name: str, merge: Merge, layers: int) -> Iterator[Coefficient]:
    """Yield what one merge sets, bottom to top; what is left to the method's defaults is not there."""
    for layer, module in places(layers):
        settled = merge.settings(_TENSORS[module].format(layer), layer, module, layers)
        for parameter, setting in settled.items():
            by_source = setting if isinstance(setting, Mapping) else {None: setting}
            for source, value in by_source.items():
                if value is not None:
                    yield Coefficient(
                        merge=name, method=merge.method, parameter=parameter, source=source, layer=layer,
                        module=module, value=value,
                    )  # fmt: skip


def places(layers: int) -> Iterator[tuple[int | None, str]]:
    """Yield the places of a model, bottom to top: a layer and a module group, or `embed` or `head` alone."""
    yield None, "embed"
    yield from ((layer, module) for layer in range(layers) for module in IN_LAYERS)
    yield None, "head"


def steps(recipe: Recipe) -> Iterator[Step]:
    """Yield the layers of a recipe's stack, bottom to top; none if it stacks nothing."""
    for slot, each in enumerate(recipe.path or ()):
        yield Step(slot=slot, model=each.model, layer=each.layer, scale=each.scale)
