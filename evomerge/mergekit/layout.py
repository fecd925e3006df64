"""How mergekit's documents are laid out: runs of layers, what slices share, lists on one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import yaml

from evomerge.recipe import Slot
from evomerge.recipe.path import ANY, WeightFactors
from evomerge.types import Value


def stretches(path: Sequence[Slot]) -> list[tuple[str, int, int]]:
    """Return the runs of layers that follow one another in one model: model, first, after the last."""
    plain = tuple(replace(slot, weights=()) for slot in path)
    return [(slots[0].model, slots[0].layer, slots[-1].layer + 1) for slots in alike(plain)]


def alike(path: Sequence[Slot]) -> list[list[Slot]]:
    """Return the path in runs of one model's consecutive layers with the same factors."""
    found: list[list[Slot]] = []
    for slot in path:
        last = found[-1][-1] if found else None
        if last and (last.model, last.layer + 1, last.weights) == (slot.model, slot.layer, slot.weights):
            found[-1].append(slot)
        else:
            found.append([slot])
    return found


def scale_of(weights: WeightFactors) -> Value | list[dict[str, Any]]:
    """Return factors by name as mergekit's `scale`."""
    if [fits for fits, _ in weights] == [ANY]:
        return weights[0][1]
    entries = [{"filter": fits, "value": by} if fits != ANY else {"value": by} for fits, by in weights]
    return entries if ANY in dict(weights) else [*entries, {"value": 1.0}]


def with_parameters(overall: Mapping[str, Any]) -> dict[str, Any]:
    """Return parameters under their key, nothing if there are none."""
    return {"parameters": dict(overall)} if overall else {}


def with_shared(content: dict[str, Any]) -> dict[str, Any]:
    """Return a document with the parameters that all slices share said once."""
    tables = [part.get("parameters", {}) for part in content["slices"]]
    shared = {
        name: value
        for name, value in tables[0].items()
        if not isinstance(value, list) and all(table.get(name) == value for table in tables)
    }
    slices = []
    for part in content["slices"]:
        own = {name: each for name, each in part.get("parameters", {}).items() if name not in shared}
        rest = {key: each for key, each in part.items() if key != "parameters"}
        slices.append({**rest, **with_parameters(own)})
    return {**content, "slices": slices, **with_parameters(shared)}


def dumped(content: dict[str, Any]) -> str:
    """Return a document as YAML."""
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


class _Dumper(yaml.SafeDumper):
    """Lists of numbers on one line, as in mergekit's own files."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _listed(dumper: _Dumper, data: list[Any]) -> yaml.Node:
    flow = all(isinstance(each, int | float | str) for each in data)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", data, flow_style=flow)


_Dumper.add_representer(list, _listed)
