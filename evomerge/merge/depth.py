"""What depends on a layer's depth: the config's lists along a path, and layers that cannot move.

Models say in two ways what kind of layer stands where: by a list with an entry per layer, which is
rebuilt along the path, or by a rule on the layer's number, under which no layer may move.
"""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import Any

from evomerge.checkpoints.compatible import LAYER_COUNTS, other_meaning
from evomerge.checkpoints.rotary import rotary
from evomerge.errors import RecipeError
from evomerge.merge.path import Member
from evomerge.recipe import Slot
from evomerge.recipe.path import slot_at

_INDICES = ("mlp_only_layers", "moe_layers")
"""Lists of layer numbers."""

_RULES = {
    "max_window_layers": "layer_types",
    "sliding_window_pattern": "layer_types",
    "_sliding_window_pattern": "layer_types",
    "global_attn_every_n_layers": "layer_types",
    "attn_layer_period": "layers_block_type",
    "no_rope_layer_interval": "no_rope_layers",
    "first_k_dense_replace": "mlp_layer_types",
    "interleave_moe_layer_step": "moe_layers",
    "expert_layer_period": None,
    "decoder_sparse_step": None,
    "num_kv_shared_layers": None,
    "num_nextn_predict_layers": None,
    "attention_types": None,
    "scale_attn_by_inverse_layer_idx": None,
}
"""Rules on the layer's number, each with the list that replaces it where a config has that."""

_IDLE = {"decoder_sparse_step": (1,), "interleave_moe_layer_step": (1,)}
"""Values, beside 0 and none, under which a rule treats all layers alike."""


def check_layers(template: str, path: Sequence[Slot], members: Mapping[str, Member]) -> None:
    """Raise `RecipeError` if a layer of the path is not there, or not of the kind its place asks for."""
    first = members[template]
    for position, slot in enumerate(path):
        _check_numbers(position, slot, members[slot.model])
    for member in members.values():
        _check_alike(first, member, _where(member, path))
    depths = {_depth(member) for member in members.values()}
    if depths == {len(path)} and all(slot.layer == i for i, slot in enumerate(path)):
        for i, slot in enumerate(path):  # in place, so that rules on numbers hold
            _check_shapes(i, slot, members, Slot(model=template, layer=i))
        return
    for member in members.values():
        _check_no_rule(member, _where(member, path))
    kinds: dict[Hashable, Slot] = {}
    for position, slot in enumerate(path):
        label = _label(members[slot.model], slot.layer, members)
        _check_shapes(position, slot, members, kinds.setdefault(label, slot))


def config_along(template: str, path: Sequence[Slot], members: Mapping[str, Member]) -> dict[str, Any]:
    """Return the template's config for the layers of the path."""
    config = dict(members[template].config)
    counts = [key for key in LAYER_COUNTS if key in config] or [LAYER_COUNTS[0]]
    config |= dict.fromkeys(counts, len(path))
    for key in _lists(members[template]):
        config[key] = [_entry(key, members[slot.model], slot.layer, members) for slot in path]
    for key in (key for key in _INDICES if any(_indices(key, member) for member in members.values())):
        config[key] = [i for i, slot in enumerate(path) if slot.layer in _indices(key, members[slot.model])]
    return config


def _lists(member: Member) -> list[str]:
    """Return the config's keys that have one entry per layer."""
    return [
        key
        for key, value in member.config.items()
        if "layer" in key and key not in _INDICES and isinstance(value, list) and len(value) == _depth(member)
    ]


def _depth(member: Member) -> int:
    return len(member.layers)


def _label(member: Member, layer: int, members: Mapping[str, Member]) -> Hashable:
    """Return what the configs' lists say of a layer."""
    keys = dict.fromkeys(key for each in members.values() for key in _lists(each))
    entries = tuple(str(_entry(key, member, layer, members)) for key in keys)
    return entries + tuple(layer in _indices(key, member) for key in _INDICES)


def _indices(key: str, member: Member) -> Sequence[int]:
    return member.config.get(key) or ()


def _entry(key: str, member: Member, layer: int, members: Mapping[str, Member]) -> Any:
    """Return what a list says of a layer; a model without it has the others' entry if they know but one."""
    if key in _lists(member):
        return member.config[key][layer]
    known = [entry for each in members.values() if key in _lists(each) for entry in each.config[key]]
    if any(entry != known[0] for entry in known):
        raise RecipeError(
            f"the config of `{member.name}` has no `{key}` for its {_depth(member)} layers, so they cannot "
            "stand beside layers of other models that do; save the model again with a current transformers"
        )
    return known[0]


def _where(member: Member, path: Sequence[Slot]) -> str:
    """Return where the path first takes something from a member."""
    named = (slot_at(position, slot) for position, slot in enumerate(path) if slot.model == member.name)
    return next(named, f"`{member.name}`, an end of the path,")


def _check_no_rule(member: Member, where: str) -> None:
    """Refuse a model whose layers are of kinds that only their numbers tell."""
    for key, instead in _RULES.items():
        value = member.config.get(key)
        if key == "max_window_layers" and not member.config.get("use_sliding_window"):
            continue
        listed = instead in _lists(member) or (instead in _INDICES and member.config.get(instead) is not None)
        if value and value not in _IDLE.get(key, ()) and not listed:
            raise RecipeError(
                f"{where}: the layers of `{member.name}` cannot change places, for its config says by their "
                f"numbers what kind they are (`{key}`: {value})"
            )


def _check_numbers(position: int, slot: Slot, member: Member) -> None:
    for layer in (slot.layer, slot.norms):
        if layer is not None and layer >= len(member.layers):
            raise RecipeError(
                f"slot {position} of the path asks for layer {layer} of `{slot.model}`, whose last layer is "
                f"{len(member.layers) - 1}"
            )
    if slot.norms is not None and member.weights(slot.norms) != member.weights(slot.layer):
        raise RecipeError(
            f"{slot_at(position, slot)} cannot have the norms of layer {slot.norms}, which is of another kind"
        )


def _check_alike(first: Member, other: Member, where: str) -> None:
    """Refuse a member that one config cannot describe together with the first: a stack has one config.

    Merges are only warned of other rotary positions, for there the weights have met halfway.
    """
    for what, ours, theirs in (
        ("architecture", first.structure.model_type, other.structure.model_type),
        ("prefix of layer names", first.structure.prefix, other.structure.prefix),
        ("hidden size", _width(first), _width(other)),
        *((f"`{key}`", *values) for key, *values in other_meaning(first.config, other.config)),
        ("rotary embedding", rotary(first.config), rotary(other.config)),
    ):
        if ours != theirs:
            raise RecipeError(
                f"{where} does not fit the path: its {what} is {theirs}, but {ours} in `{first.name}`, whose "
                "config all layers share"
            )


def _width(member: Member) -> int:
    return member.specs[member.structure.embedding].shape[-1]


def _check_shapes(position: int, slot: Slot, members: Mapping[str, Member], other: Slot) -> None:
    """Raise `RecipeError` for the first tensor that two layers of one kind do not share."""
    shapes, expected = (members[each.model].weights(each.layer) for each in (slot, other))
    for inside in dict.fromkeys([*expected, *shapes]):
        found, wanted = (
            str(list(each[inside].shape)) if inside in each else "missing" for each in (shapes, expected)
        )
        if found != wanted:
            raise RecipeError(
                f"{slot_at(position, slot)} does not fit the path: its `{inside}` is {found}, "
                f"but {wanted} in layer {other.layer} of `{other.model}`"
            )
