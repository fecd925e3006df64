"""mergekit's values along the layers, as ours: what a level says, levels over one another, their ends.

A value of mergekit is looked up at the source, then the slice, then the whole file, and a filter that does
not match leaves the word to the next level; the first anchor holds before the first layer of a slice and
the last one behind the last (https://github.com/arcee-ai/mergekit, config.py and plan.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from evomerge.recipe.layered import Anchors, Filtered, Layered, interpolated
from evomerge.types import Value

_INSIDE = ("_proj", "attn", "mlp", "layernorm", "layers.", "attention", "feed_forward")
"""Parts of names that only tensors inside layers have."""


def composed(levels: Iterable[Layered | None], default: Value | None) -> tuple[Layered | None, bool]:
    """Return what levels say, the first to speak first, and whether they leave no tensor without a value.

    Where they do, `default` holds, if there is one. Nothing said by any level is None.
    """
    entries: list[Filtered] = []
    for level in levels:
        if level is None:
            continue
        for entry in level if _filters(level) else (Filtered(value=level),):  # type: ignore[arg-type]
            if entry.filter == "*":
                entry = replace(entry, filter=None)
            entries.append(entry)
            if entry.filter is None:
                return (entries[0].value if len(entries) == 1 else tuple(entries)), True
    if not entries:
        return None, False
    if default is None:
        return tuple(entries), False
    return (*entries, Filtered(value=default)), True


def changed(setting: Layered, change: Callable[[Value], Value]) -> Layered:
    """Return `setting` with each of its values changed."""
    if isinstance(setting, tuple):
        return tuple(
            replace(each, value=changed(each.value, change)) if isinstance(each, Filtered) else change(each)
            for each in setting
        )  # type: ignore[return-value]  # anchors stay anchors, filters filters
    return change(setting)


def at(setting: Layered, depth: float) -> Layered:
    """Return `setting` at a relative `depth` (0 first layer, 1 last), its filters kept."""
    if not isinstance(setting, tuple):
        return setting
    if _filters(setting):
        return tuple(replace(each, value=at(each.value, depth)) for each in setting)  # type: ignore[union-attr,arg-type]
    return interpolated(setting, depth)  # type: ignore[arg-type]


def sampled(setting: Layered, depths: list[float]) -> Layered:
    """Return `setting` with anchors for layers at these depths, one for each."""
    if not isinstance(setting, tuple):
        return setting
    if _filters(setting):
        return tuple(replace(each, value=sampled(each.value, depths)) for each in setting)  # type: ignore[union-attr,arg-type]
    values: Anchors = tuple(interpolated(setting, depth) for depth in depths)  # type: ignore[arg-type]
    return values[0] if len(set(values)) == 1 else values


def bends(setting: Layered) -> bool:
    """Return whether the setting has anchors that differ."""
    if not isinstance(setting, tuple):
        return False
    if _filters(setting):
        return any(bends(each.value) for each in setting)  # type: ignore[union-attr]
    return len(set(setting)) > 1


def outside(setting: Layered) -> Layered:
    """Return `setting`, without anchors, as far as it can concern tensors outside the layers."""
    if not isinstance(setting, tuple):
        return setting
    kept = tuple(each for each in setting if isinstance(each, Filtered) and not in_layers_only(each.filter))
    return kept[0].value if kept and kept[0].filter is None else kept


def in_layers_only(part: str | None) -> bool:
    """Return whether only tensors inside layers have this part in their name."""
    return part is not None and any(inside in part for inside in _INSIDE)


def _filters(setting: Layered) -> bool:
    return isinstance(setting, tuple) and any(isinstance(each, Filtered) for each in setting)
