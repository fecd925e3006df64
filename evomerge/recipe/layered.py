"""Values that change along the layers, as in mergekit's recipes: anchors to interpolate, filters by name.

`[0.2, 0.9, 0.5]` are anchors, equally spaced from the first layer to the last; what lies outside the layers
takes the first. `[{filter: mlp, value: 0.3}, {value: 0.7}]` gives a tensor the value of the first
filter that its name contains; a filter left out matches every name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from evomerge.types import Value

Anchors: TypeAlias = tuple[Value, ...]


@dataclass(frozen=True, kw_only=True)
class Filtered:
    """A value, or anchors, for tensors whose name contains `filter` (None: for every tensor)."""

    value: Value | Anchors
    filter: str | None = None

    def matches(self, tensor: str) -> bool:
        """Return whether the value is meant for the tensor of this name."""
        return self.filter in (None, "*") or str(self.filter) in tensor


Layered: TypeAlias = Value | Anchors | tuple[Filtered, ...]
"""One value everywhere, anchors, or filters of which the first that matches counts."""


def value_at(setting: Layered, *, tensor: str, depth: float) -> Value | None:
    """Return what `setting` says at a tensor of relative `depth` (0 first, 1 last); None if nothing."""
    if not isinstance(setting, tuple):
        return setting
    for entry in setting:
        if not isinstance(entry, Filtered):
            return interpolated(setting, depth)  # type: ignore[arg-type]  # anchors, then: no mixture is read
        if entry.matches(tensor):
            return value_at(entry.value, tensor=tensor, depth=depth)
    return None


def relative_depth(layer: int | None, first: int, last: int) -> float:
    """Return where `layer` lies between `first` and `last`: 0 to 1; 0 outside, 1 in a run of one layer."""
    if layer is None:
        return 0.0
    return (layer - first) / (last - first) if last > first else 1.0


def interpolated(anchors: Sequence[Value], depth: float) -> Value:
    """Return the value at `depth` (0 to 1) between equally spaced anchors; of words, the one before it."""
    place = depth * (len(anchors) - 1)
    before = min(int(place), len(anchors) - 1)
    low, high = anchors[before], anchors[min(before + 1, len(anchors) - 1)]
    if isinstance(low, bool | str) or isinstance(high, bool | str):
        return low
    return low + (high - low) * (place - before)
