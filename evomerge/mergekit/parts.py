"""What slices of mergekit merge, put together to the merges of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.mergekit.gradients import bends
from evomerge.mergekit.known import COMPAT, METHODS
from evomerge.mergekit.parameters import Settings, at_ends
from evomerge.recipe import Group, Merge
from evomerge.recipe.merge import IN_LAYERS


@dataclass(frozen=True, kw_only=True)
class Part:
    """What a slice merges: the method, base and sources; the layers; the parameters."""

    key: tuple[str, str | None, tuple[str, ...]]
    span: tuple[int, int]
    settings: Settings

    @property
    def models(self) -> tuple[str, ...]:
        _, base, sources = self.key
        return (*((base,) if base else ()), *sources)

    def merge(self, params: Settings, groups: tuple[Group, ...]) -> Merge:
        method, base, sources = self.key
        compat = COMPAT if METHODS[method].differs else "evomerge"
        return Merge(method=method, base=base, sources=sources, compat=compat, params=params, groups=groups)


def whole(part: Part) -> Merge:
    """Return the merge of all layers; what lies behind the last takes the last anchors."""
    behind = {name: end for name, end in at_ends(part.settings, 1.0).items() if end != _start(part, name)}
    groups = (Group(modules=("head",), params=behind),) if behind else ()
    return part.merge(part.settings, groups)


def _start(part: Part, name: str) -> object:
    return at_ends(part.settings, 0.0)[name]


def in_slices(parts: list[Part], *, embed: bool, head: bool) -> Merge:
    """Return the merge with parameters by slice; outside the layers those of the first and last one."""
    shared = {
        name: each
        for name, each in parts[0].settings.items()
        if all(part.settings.get(name) == each for part in parts)
        and not any(bends(value) for value in (each.values() if isinstance(each, Mapping) else (each,)))
    }

    def own(settings: Settings) -> Settings:
        return {name: each for name, each in settings.items() if name not in shared}

    groups = [
        Group(modules=IN_LAYERS, layers=(part.span[0], part.span[1] - 1), params=params)
        for part in parts
        if (params := own(part.settings))
    ]
    ends = [("embed", parts[0], 0.0)] * embed + [("head", parts[-1], 1.0)] * head
    for module, part, depth in ends:
        if params := own(at_ends(part.settings, depth)):
            groups.append(Group(modules=(module,), params=params))
    return parts[0].merge(shared, tuple(groups))


def overlap(one: Part, other: Part) -> bool:
    """Return whether two slices take layers in common."""
    return one.span[0] < other.span[1] and other.span[0] < one.span[1]
