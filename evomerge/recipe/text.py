"""Recipes as YAML, both ways without loss."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, Literal, overload

import yaml

from evomerge.errors import RecipeError, unknown
from evomerge.recipe.layered import Anchors, Filtered, Layered
from evomerge.recipe.merge import Group, Merge, Setting
from evomerge.recipe.model import ModelRef, Recipe
from evomerge.recipe.path import NO_ENDS, Ends, Slot, WeightFactors
from evomerge.recipe.plain import read_plain
from evomerge.types import Value

RECIPE_FILE = "recipe.yaml"
"""The name of the recipe in the folder of the model that it makes."""

LARGEST = 1 << 20
"""Bytes of a recipe file: far above any real one, and below what takes long to read."""

_OTHERS = {
    "merge_method": (
        "a recipe of mergekit",
        "write its models under `models` and what to do with them under `merges`",
    ),
    "objectives": ("a space to search", "give it to `evomerge search`"),
}


def to_yaml(recipe: Recipe) -> str:
    """Return the recipe as YAML; `from_yaml` gives back an equal recipe."""
    content: dict[str, Any] = {
        "models": {name: _model(ref) for name, ref in recipe.models.items()},
    }
    if recipe.merges:
        content["merges"] = {name: _merge(merge) for name, merge in recipe.merges.items()}
    if recipe.path is not None:
        content["path"] = [_slot(slot) for slot in recipe.path]
    if recipe.ends != NO_ENDS:
        content["ends"] = _ends(recipe.ends)
    if recipe.tokenizer is not None:
        content["tokenizer"] = recipe.tokenizer
    if recipe.untie:
        content["untie"] = True
    if recipe.template:
        content["template"] = recipe.template
    if recipe.dtype is not None:
        content["dtype"] = recipe.dtype
    content["seed"] = recipe.seed
    return yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)


def from_yaml(text: str) -> Recipe:
    """Return the recipe written in `text`. Raises `RecipeError` naming the key that is wrong."""
    content = read_plain(text)
    for key, (kind, advice) in _OTHERS.items():
        if isinstance(content, dict) and key in content:
            raise RecipeError(f"this is {kind}, not a recipe of evomerge (it has `{key}`); {advice}")
    optional = {"merges", "path", "ends", "dtype", "seed", "tokenizer", "untie", "template"}
    top = _keys(content, "recipe", {"models"}, optional)
    models = {str(name): _read_model(name, ref) for name, ref in _table(top["models"], "models")}
    merges = {str(name): _read_merge(name, merge) for name, merge in _table(top.get("merges", {}), "merges")}
    seed, dtype = top.get("seed", 0), _word(top.get("dtype"), "dtype", empty=True)
    if type(seed) is not int:
        raise RecipeError(f"`seed` must be a whole number, found {seed!r}")
    untie = top.get("untie", False)
    if not isinstance(untie, bool):
        raise RecipeError(f"`untie` must be true or false, found {untie!r}")
    return Recipe(
        models=models,
        merges=merges,
        path=_read_path(top["path"]) if "path" in top else None,
        ends=_read_ends(top["ends"]) if "ends" in top else NO_ENDS,
        dtype=dtype,
        seed=seed,
        tokenizer=_word(top.get("tokenizer"), "tokenizer", empty=True),
        untie=untie,
        template=_word(top.get("template", ""), "template"),
    )


class _Dumper(yaml.SafeDumper):
    """Innermost tables on one line: a group of parameters reads as a row."""

    def ignore_aliases(self, data: Any) -> bool:
        del data
        return True


def _row(dumper: _Dumper, data: _Row) -> yaml.Node:
    return dumper.represent_mapping("tag:yaml.org,2002:map", data.items(), flow_style=True)


class _Row(dict[str, Any]):
    """A table to be written on one line."""


def _text(dumper: _Dumper, data: str) -> yaml.Node:
    """Quote what is not printable: plain YAML folds the line breaks of Unicode into spaces."""
    return dumper.represent_scalar("tag:yaml.org,2002:str", data, style=None if data.isprintable() else '"')


_Dumper.add_representer(_Row, _row)
_Dumper.add_representer(str, _text)


def _model(ref: ModelRef) -> _Row:
    return _Row({key: value for key, value in vars(ref).items() if value is not None})


def _merge(merge: Merge) -> dict[str, Any]:
    content: dict[str, Any] = {"method": merge.method}
    if merge.base is not None:
        content["base"] = merge.base
    content["sources"] = list(merge.sources)
    if merge.compat != "evomerge":
        content["compat"] = merge.compat
    if merge.params:
        content["params"] = _settings(merge.params)
    if merge.groups:
        content["groups"] = [_group(group) for group in merge.groups]
    return content


def _group(group: Group) -> _Row:
    row = _Row(modules=list(group.modules))
    if group.layers is not None:
        row = _Row(layers=list(group.layers), **row)
    return _Row(row | _settings(group.params))


def _slot(slot: Slot) -> _Row:
    row = _Row(model=slot.model, layer=slot.layer)
    if slot.norms is not None:
        row["norms"] = slot.norms
    if slot.scale != 1:
        row["scale"] = slot.scale
    return _Row(row | _factors(slot.weights))


def _ends(ends: Ends) -> _Row:
    named = {"embed": ends.embed, "head": ends.head}
    given = {key: value for key, value in named.items() if value is not None}
    return _Row(given | _factors(ends.weights))


def _factors(weights: WeightFactors) -> dict[str, _Row]:
    return {"weights": _Row(weights)} if weights else {}


def _settings(params: Mapping[str, Any]) -> _Row:
    return _Row({name: _setting(value) for name, value in params.items()})


def _setting(value: Setting | Filtered) -> Any:
    if isinstance(value, Mapping):
        return _Row({source: _setting(each) for source, each in value.items()})
    if isinstance(value, Filtered):
        own = {} if value.filter is None else {"filter": value.filter}
        return _Row(own | {"value": _setting(value.value)})
    return [_setting(each) for each in value] if isinstance(value, tuple) else value


def _read_model(name: str, content: Any) -> ModelRef:
    if isinstance(content, str):
        return ModelRef(source=content)
    where = f"models.{name}"
    optional = {field.name for field in fields(ModelRef)} - {"source"}
    table = _keys(content, where, {"source"}, optional)
    others = {key: _word(table.get(key), f"{where}.{key}", empty=True) for key in optional}
    return ModelRef(source=_word(table["source"], f"{where}.source"), **others)


def _read_merge(name: str, content: Any) -> Merge:
    where = f"merges.{name}"
    optional = {"base", "compat", "params", "groups"}
    known = _keys(content, where, {"method", "sources"}, optional)
    groups = _list(known.get("groups", []), f"{where}.groups")
    return Merge(
        method=_word(known["method"], f"{where}.method"),
        sources=tuple(map(str, _list(known["sources"], f"{where}.sources"))),
        base=None if known.get("base") is None else str(known["base"]),
        compat=_word(known.get("compat", "evomerge"), f"{where}.compat"),
        params=_read_settings(known.get("params", {}), f"{where}.params"),
        groups=tuple(_read_group(f"{where}.groups[{i}]", each) for i, each in enumerate(groups)),
    )


def _read_group(where: str, content: Any) -> Group:
    table = dict(_table(content, where))
    if "modules" not in table:
        raise RecipeError(f"`{where}` needs `modules`")
    modules, layers = table.pop("modules"), table.pop("layers", None)
    modules = [modules] if isinstance(modules, str) else _list(modules, f"{where}.modules")
    return Group(
        modules=tuple(map(str, modules)),
        layers=None if layers is None else _read_layers(layers, f"{where}.layers"),
        params=_read_settings(table, where),
    )


def _read_path(content: Any) -> tuple[Slot, ...]:
    return tuple(_read_slot(f"path[{i}]", each) for i, each in enumerate(_list(content, "path")))


def _read_slot(where: str, content: Any) -> Slot:
    table = _keys(content, where, {"model", "layer"}, {"norms", "scale", "weights"})
    layer = _count(table["layer"], f"{where}.layer")
    norms = None if table.get("norms") is None else _count(table["norms"], f"{where}.norms")
    scale = _number(table.get("scale", 1.0), f"{where}.scale")
    weights = _read_factors(table.get("weights", {}), f"{where}.weights")
    try:
        return Slot(model=str(table["model"]), layer=layer, norms=norms, scale=scale, weights=weights)
    except RecipeError as error:
        raise RecipeError(f"`{where}`: {error}") from error


def _read_ends(content: Any) -> Ends:
    table = _keys(content, "ends", set(), {"embed", "head", "weights"})
    embed, head = (None if table.get(key) is None else str(table[key]) for key in ("embed", "head"))
    return Ends(embed=embed, head=head, weights=_read_factors(table.get("weights", {}), "ends.weights"))


def _read_factors(content: Any, where: str) -> WeightFactors:
    return tuple((str(fits), _number(by, f"{where}.{fits}")) for fits, by in _table(content, where))


def _number(content: Any, where: str) -> float:
    if isinstance(content, bool) or not isinstance(content, int | float):
        raise RecipeError(f"`{where}` must be a number, found {content!r}")
    return content


def _count(content: Any, where: str) -> int:
    if type(content) is not int or content < 0:
        raise RecipeError(f"`{where}` must be a whole number from 0, found {content!r}")
    return content


def _read_layers(content: Any, where: str) -> tuple[int, int]:
    if not isinstance(content, list) or [type(each) for each in content] != [int, int]:
        raise RecipeError(f"`{where}` must be [first, last], found {content!r}")
    return content[0], content[1]


def _read_settings(content: Any, where: str) -> dict[str, Setting]:
    settings: dict[str, Setting] = {}
    for name, value in _table(content, where):
        place = f"{where}.{name}"
        if isinstance(value, dict):
            settings[str(name)] = {
                str(source): _read_layered(each, f"{place}.{source}", numbers=True)
                for source, each in value.items()
            }
        else:
            settings[str(name)] = _read_layered(value, place)
    return settings


def _read_layered(content: Any, where: str, *, numbers: bool = False) -> Layered:
    """Return one value, anchors or filters; only `numbers` among them, where those are asked for."""
    if isinstance(content, list) and any(isinstance(each, dict) for each in content):
        return tuple(_read_filtered(each, f"{where}[{i}]", numbers) for i, each in enumerate(content))
    return _read_anchors(content, where, numbers)


def _read_filtered(content: Any, where: str, numbers: bool) -> Filtered:
    table = _keys(content, where, {"value"}, {"filter"})
    word = _word(table.get("filter"), f"{where}.filter", empty=True)
    return Filtered(filter=word, value=_read_anchors(table["value"], f"{where}.value", numbers))


def _read_anchors(content: Any, where: str, numbers: bool) -> Value | Anchors:
    listed = content if isinstance(content, list) else [content]
    if not listed or not all(isinstance(each, bool | int | float | str) for each in listed):
        raise RecipeError(
            f"`{where}` must be one value, a list of anchors along the layers, or a list of "
            f"{{filter, value}}, for all sources or by source, found {content!r}"
        )
    for each in listed if numbers else ():
        if isinstance(each, bool | str):
            raise RecipeError(f"`{where}` must be a number, found {each!r}")
    return tuple(listed) if isinstance(content, list) else listed[0]


@overload
def _word(content: Any, where: str) -> str: ...
@overload
def _word(content: Any, where: str, *, empty: Literal[True]) -> str | None: ...
def _word(content: Any, where: str, *, empty: bool = False) -> str | None:
    if isinstance(content, str) or (content is None and empty):
        return content
    raise RecipeError(f"`{where}` must be a word, found {content!r}")


def _list(content: Any, where: str) -> list[Any]:
    if not isinstance(content, list):
        raise RecipeError(f"`{where}` must be a list, found {content!r}")
    return content


def _table(content: Any, where: str) -> list[tuple[str, Any]]:
    if not isinstance(content, dict):
        raise RecipeError(f"`{where}` must be a table, found {content!r}")
    return list(content.items())


def _keys(content: Any, where: str, needed: set[str], optional: set[str]) -> dict[str, Any]:
    table = dict(_table(content, where))
    for key in table:
        if key not in needed | optional:
            raise RecipeError(f"`{where}`: {unknown('key', str(key), needed | optional)}")
    for key in sorted(needed - set(table)):
        raise RecipeError(f"`{where}` needs `{key}`")
    return table
