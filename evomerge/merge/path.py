"""The routes of a path: which tensor of which model becomes which tensor of the output, times what.

A positive scale of the hidden state needs no computing at run time: with C the product of the scales up
to a layer, what the layer adds to the stream is divided by C (`folding.py` says where that is right), and
the final norm takes away the rest
(data-flow space: Akiba et al. 2024, https://arxiv.org/abs/2403.13187; that scales fold is our addition).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import accumulate
from operator import mul
from typing import Any

from evomerge.checkpoints.architecture import Architecture, is_norm, read_architecture
from evomerge.checkpoints.compatible import is_weight
from evomerge.checkpoints.headers import TensorSpec
from evomerge.checkpoints.tied import head_name
from evomerge.errors import RecipeError
from evomerge.merge.folding import NOTHING, Fold, find_fold
from evomerge.recipe import Recipe, Slot
from evomerge.recipe.path import ANY, WeightFactors, slot_at


@dataclass(frozen=True, kw_only=True)
class Member:
    """A model that a path takes tensors from: a source, or a merge as if it were one."""

    name: str
    config: Mapping[str, Any]
    specs: Mapping[str, TensorSpec]

    @cached_property
    def structure(self) -> Architecture:
        """Its layers, embedding and head."""
        return read_architecture(self.specs, self.config)

    @cached_property
    def layers(self) -> tuple[Mapping[str, str], ...]:
        """For each layer, its tensors' names by their names inside the layer."""
        layers: list[dict[str, str]] = [{} for _ in range(self.structure.layers)]
        for name in self.specs:
            layer, _ = self.structure.place(name)
            if layer is not None:
                layers[layer][name.removeprefix(f"{self.structure.prefix}.{layer}.")] = name
        return tuple(layers)

    def outside(self, module: str) -> list[str]:
        """Return the tensors outside the layers that belong to `module`."""
        return [name for name in self.specs if self.structure.place(name) == (None, module)]

    @property
    def ends_in_norm(self) -> bool:
        """Whether a norm stands between layers and head: none does where each layer ends in one (GPT-1)."""
        return any(is_norm(name) for name in self.outside("head"))

    def weights(self, layer: int) -> Mapping[str, TensorSpec]:
        """Return the weights of a layer by their names inside it; constants and integers aside."""
        named = self.layers[layer].items()
        return {inside: self.specs[name] for inside, name in named if is_weight(name, self.specs[name])}


@dataclass(frozen=True, kw_only=True)
class Route:
    """One tensor of the output: `tensor` of the member `part`, times `factor`, plus `offset`."""

    name: str
    spec: TensorSpec
    part: str
    tensor: str
    factor: float = 1.0
    offset: float = 0.0


def route(recipe: Recipe, members: Mapping[str, Member]) -> tuple[Route, ...]:
    """Return a route to each tensor of the output, in writing order.

    The layers are there and of the right kinds (`depth.check_layers`). Raises `RecipeError` for a scale that
    cannot be folded, or a factor that multiplies nothing.
    """
    path = recipe.path or ()
    template, ends = members[recipe.embed_from], members[recipe.head_from]
    _check_ends(template, ends)
    _check_factors_used(recipe, members)
    routes = [
        *_outside(template, template.outside("embed"), recipe.ends.weights),
        *_layers(path, members, template.structure.prefix),
        *_outside(ends, ends.outside("head"), recipe.ends.weights),
    ]
    if ends.structure.head is None and not is_tied(recipe, members):
        routes.append(_untied(ends, members, recipe.ends.weights))
    return tuple(replace(each, spec=_stored_as(each, template)) for each in routes)


def is_tied(recipe: Recipe, members: Mapping[str, Member]) -> bool:
    """Return whether the output's head is its embedding."""
    one_model = recipe.embed_from == recipe.head_from
    return one_model and not recipe.untie and members[recipe.embed_from].structure.tied


def _layers(path: tuple[Slot, ...], members: Mapping[str, Member], prefix: str) -> Iterator[Route]:
    products = accumulate((slot.scale for slot in path), mul, initial=1.0)
    next(products)
    for position, (slot, product) in enumerate(zip(path, products, strict=True)):
        member = members[slot.model]
        fold = _fold(position, slot, member, product)
        for inside, tensor in _tensors(slot, member).items():
            spec = member.specs[tensor]
            name = f"{prefix}.{position}.{inside}"
            factor = _factor(slot.weights, name) if spec.is_float else 1.0
            plain = Route(name=name, spec=spec, part=slot.model, tensor=tensor, factor=factor)
            folded = inside in fold.tensors
            yield replace(plain, factor=factor / product, offset=fold.offset(product)) if folded else plain


def _tensors(slot: Slot, member: Member) -> Mapping[str, str]:
    """Return the slot's tensors by their names inside the layer, norms from where the slot has them."""
    own = member.layers[slot.layer]
    if slot.norms is None:
        return own
    norms = member.layers[slot.norms]
    return {
        inside: norms[inside] if member.structure.place(tensor)[1] == "rest" else tensor
        for inside, tensor in own.items()
    }


def _fold(position: int, slot: Slot, member: Member, product: float) -> Fold:
    """Return what of the layer takes the scale `product` that the stream has there."""
    if product == 1:
        return NOTHING
    if not 1e-30 < product < 1e30:
        raise RecipeError(
            f"the scales of the path multiply to {product:g} at {slot_at(position, slot)}; "
            "keep their product near 1"
        )
    fold = find_fold(member.weights(slot.layer), member.config)
    if fold is None or not member.ends_in_norm:
        raise RecipeError(
            f"the scale {product:g} of the stream cannot be folded into {slot_at(position, slot)}: blocks of "
            f"`{member.structure.model_type}` are not known to read the stream through norms alone and add "
            "what they make as it is; leave every `scale` at 1 (in a space, `scale: 1` under `path`)"
        )
    return fold


def _outside(member: Member, names: list[str], weights: WeightFactors) -> Iterator[Route]:
    for name in names:
        spec = member.specs[name]
        factor = _factor(weights, name) if spec.is_float else 1.0
        yield Route(name=name, spec=spec, part=member.name, tensor=name, factor=factor)


def _untied(member: Member, members: Mapping[str, Member], weights: WeightFactors) -> Route:
    """Return the head of a tied model as a tensor of its own."""
    heads = [each.structure.head for each in members.values() if each.structure.head is not None]
    name = heads[0] if heads else head_name(member.structure.model_type)
    if name is None:
        raise RecipeError(
            f"the output head of a `{member.structure.model_type}` is its embedding and has no name of its "
            "own, so a path cannot have it apart; take both ends from one model, and leave out `untie`"
        )
    embedding = member.structure.embedding
    factor = _factor(weights, name)
    spec = member.specs[embedding]
    return Route(name=name, spec=spec, part=member.name, tensor=embedding, factor=factor)


def _factor(weights: WeightFactors, name: str) -> float:
    return next((factor for fits, factor in weights if _fits(fits, name)), 1.0)


def _fits(fits: str, name: str) -> bool:
    return fits == ANY or fits in name


def _stored_as(route: Route, template: Member) -> TensorSpec:
    """Return shape and dtype of an output: the template's dtype for a tensor of this kind, if it has one."""
    like = template.specs.get(route.name)
    if like is None:
        layer = template.structure.place(route.name)[0]
        inside = route.name.removeprefix(f"{template.structure.prefix}.{layer}.")
        like = template.specs.get(template.layers[0].get(inside, template.structure.embedding))
    if like is None or not (like.is_float and route.spec.is_float):
        return route.spec
    return replace(route.spec, dtype=like.dtype)


def _check_factors_used(recipe: Recipe, members: Mapping[str, Member]) -> None:
    """Refuse factors that multiply nothing anywhere: their name is misspelt."""
    path = recipe.path or ()
    prefix = members[recipe.embed_from].structure.prefix
    names = {
        f"{prefix}.{position}.{inside}"
        for position, slot in enumerate(path)
        for inside in members[slot.model].layers[slot.layer]
    }
    names |= {name for member in members.values() for name in member.specs} - {
        name for member in members.values() for layer in member.layers for name in layer.values()
    }
    asked = [*recipe.ends.weights, *(each for slot in path for each in slot.weights)]
    for fits in dict.fromkeys(fits for fits, _ in asked):
        if not any(_fits(fits, name) for name in names):
            raise RecipeError(f"`weights`: no tensor of the path has `{fits}` in its name")


def _check_ends(template: Member, ends: Member) -> None:
    embedding, head = template.structure.embedding, ends.structure.head or ends.structure.embedding
    rows, found = template.specs[embedding].shape, ends.specs[head].shape
    if rows != found:
        raise RecipeError(
            f"the embedding of `{template.name}` is {list(rows)} and the output head of `{ends.name}` "
            f"{list(found)}; take both from models of one vocabulary"
        )
