"""mergekit's values along the layers, as ours: what a level says, levels over one another, their ends.

A value of mergekit is looked up at the source, then the slice, then the whole file, and a filter that does
not match leaves the word to the next level; the first anchor holds before the first layer of a slice and
the last one behind the last (https://github.com/arcee-ai/mergekit, config.py and plan.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from evomerge.recipe.layered import Anchors, Filtered, Layered, interpolated
from evomerge.types import Value

_INSIDE = ("_proj", "attn", "mlp", "layernorm", "layers.", "attention", "feed_forward")
"""Parts of names that only tensors inside layers have."""


def filters_in(setting: Layered) -> tuple[Filtered, ...]:
    """Return the filters that a setting is, none if it is a value or anchors."""
    if not isinstance(setting, tuple):
        return ()
    return tuple(each for each in setting if isinstance(each, Filtered))


def composed(levels: Iterable[Layered | None], default: Value | None) -> tuple[Layered | None, bool]:
    """Return what levels say, the first to speak first, and whether they leave no tensor without a value.

    Where they do, `default` holds, if there is one. Nothing said by any level is None.
    """
    said: list[Filtered] = []
    for level in levels:
        if level is None:
            continue
        for entry in filters_in(level) or (_everywhere(level),):
            if entry.filter not in (None, "*"):
                said.append(entry)
                continue
            return ((*said, Filtered(value=entry.value)) if said else entry.value), True
    if not said:
        return None, False
    return (tuple(said), False) if default is None else ((*said, Filtered(value=default)), True)


def changed(setting: Layered, change: Callable[[Value], Value]) -> Layered:
    """Return `setting` with each of its values changed."""
    return _each(setting, change, lambda anchors: tuple(change(each) for each in anchors))


def at(setting: Layered, depth: float) -> Layered:
    """Return `setting` at a relative `depth` (0 first layer, 1 last), its filters kept."""
    return _each(setting, _same, lambda anchors: interpolated(anchors, depth))


def sampled(setting: Layered, depths: Sequence[float]) -> Layered:
    """Return `setting` with anchors for layers at these depths, one for each."""

    def along(anchors: Anchors) -> Value | Anchors:
        values = tuple(interpolated(anchors, depth) for depth in depths)
        return values[0] if len(set(values)) == 1 else values

    return _each(setting, _same, along)


def first_of(setting: Layered) -> Layered:
    """Return `setting` with the first of its anchors in their place."""
    return _each(setting, _same, lambda anchors: anchors[0])


def bends(setting: Layered) -> bool:
    """Return whether the setting has anchors that differ."""
    if filters := filters_in(setting):
        return any(bends(each.value) for each in filters)
    return isinstance(setting, tuple) and len(set(setting)) > 1


def outside(setting: Layered) -> Layered:
    """Return `setting`, without anchors, as far as it can concern tensors outside the layers."""
    filters = filters_in(setting)
    if not filters:
        return setting
    kept = tuple(each for each in filters if not in_layers_only(each.filter))
    return kept[0].value if kept and kept[0].filter is None else kept


def in_layers_only(part: str | None) -> bool:
    """Return whether only tensors inside layers have this part in their name."""
    return part is not None and any(inside in part for inside in _INSIDE)


def _each(
    setting: Layered, value: Callable[[Value], Value], anchors: Callable[[Anchors], Value | Anchors]
) -> Layered:
    """Return `setting` with its values and anchors changed, also under filters."""

    def one(of: Value | Anchors) -> Value | Anchors:
        return anchors(of) if isinstance(of, tuple) else value(of)

    if filters := filters_in(setting):
        return tuple(Filtered(filter=each.filter, value=one(each.value)) for each in filters)
    return one(_unfiltered(setting))


def _everywhere(setting: Layered) -> Filtered:
    return Filtered(value=_unfiltered(setting))


def _unfiltered(setting: Layered) -> Value | Anchors:
    """Return a value or anchors as what they are."""
    if not isinstance(setting, tuple):
        return setting
    return tuple(each for each in setting if not isinstance(each, Filtered))


def _same(value: Value) -> Value:
    return value
