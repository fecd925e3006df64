"""The output stack of a recipe: layers of models and merges, bottom to top, and what lies around them."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import TypeAlias

from evomerge.errors import RecipeError

WeightFactors: TypeAlias = tuple[tuple[str, float], ...]
"""(part of a tensor's name, factor): the first that fits multiplies the tensor; `*` fits every one.

The name is the one the tensor has in the stack, such as `model.layers.3.mlp.down_proj.weight`. This is
what mergekit's passthrough calls `scale`: it multiplies weights, not the hidden state.
"""

ANY = "*"

LONGEST = 1024
"""Layers of a path at most; a longer one is a mistake in a generator rather than a model."""


@dataclass(frozen=True, kw_only=True)
class Slot:
    """One layer of the stack: layer `layer` of `model`, which is a source or a merge.

    `scale` multiplies the hidden state that enters the layer. `norms` is the layer of the same model that
    gives the norms (None: `layer`), so that layers can share their attention and MLP and keep their norms.
    """

    model: str
    layer: int
    scale: float = 1.0
    norms: int | None = None
    weights: WeightFactors = ()

    def __post_init__(self) -> None:
        for layer in (self.layer, self.norms):
            if layer is not None and (type(layer) is not int or layer < 0):
                raise RecipeError(f"a layer of a path is a whole number from 0, found {layer!r}")
        if not 0 < self.scale <= sys.float_info.max:
            raise RecipeError(
                f"the scale of layer {self.layer} of `{self.model}` must be above 0 and finite, found "
                f"{self.scale!r}: other scales cannot be folded into the weights"
            )
        check_factors(self.weights)

    def content(self) -> tuple[object, ...]:
        """Return what the slot asks of its model, spelled in one way."""
        norms = None if self.norms == self.layer else self.norms
        return self.layer, float(self.scale), norms, [[fits, float(by)] for fits, by in self.weights]


def slot_at(position: int, slot: Slot) -> str:
    """Return what to call a slot of a path; slots are counted from 0, as layers are."""
    return f"slot {position} (layer {slot.layer} of `{slot.model}`)"


@dataclass(frozen=True, kw_only=True)
class Ends:
    """What lies around the stack: the embedding of `embed`, the final norm and output head of `head`.

    None stands for the model of the path's first and last layer. `weights` multiply tensors as in a slot.
    """

    embed: str | None = None
    head: str | None = None
    weights: WeightFactors = ()

    def __post_init__(self) -> None:
        check_factors(self.weights)


def check_factors(weights: WeightFactors) -> None:
    """Raise `RecipeError` for a factor that is not finite, or given twice."""
    for i, (fits, factor) in enumerate(weights):
        if not abs(factor) <= sys.float_info.max:
            raise RecipeError(f"the factor of the weights `{fits}` must be finite, found {factor!r}")
        if fits in [earlier for earlier, _ in weights[:i]]:
            raise RecipeError(f"the weights `{fits}` have two factors; give one")


NO_ENDS = Ends()
"""Nothing said of the ends."""
