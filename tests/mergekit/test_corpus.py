"""A corpus of mergekit's recipes: each says the same as ours, tensor by tensor, and survives both ways."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from evomerge import plugins
from evomerge.mergekit.known import METHODS, ours, to_ours
from evomerge.mergekit.reading import from_mergekit
from evomerge.mergekit.writing import to_mergekit
from evomerge.parameters import declared
from evomerge.recipe import Merge, Recipe, from_yaml, to_yaml
from tests.mergekit import reference

CONFIGS = sorted((Path(__file__).parent / "configs").glob("*.yaml"))
MERGES = [path for path in CONFIGS if not path.stem.startswith(("passthrough", "frankenmerge", "multimerge"))]


def converted(path: Path) -> Recipe:
    return from_mergekit(path.read_text(encoding="utf-8"), path.name)[0]


def test_the_corpus_has_every_method_that_both_have() -> None:
    methods = {
        document["merge_method"]
        for path in CONFIGS
        for document in yaml.safe_load_all(path.read_text(encoding="utf-8"))
    }
    assert methods == {*METHODS, "passthrough"}
    assert len(CONFIGS) >= 30


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_there_and_back_is_the_same_recipe(path: Path) -> None:
    recipe = converted(path)
    written, _ = to_mergekit(recipe)
    again, _ = from_mergekit(written)
    assert to_yaml(again) == to_yaml(recipe)
    assert again.key == recipe.key
    assert from_yaml(to_yaml(recipe)) == recipe


@pytest.mark.parametrize("path", MERGES, ids=lambda path: path.stem)
def test_each_tensor_has_the_parameters_that_mergekit_looks_up(path: Path) -> None:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    recipe = converted(path)
    slot = 0
    compared = 0
    places = reference.places(config)
    for i, (part, layer, name, t) in enumerate(places):
        if recipe.path is not None:
            slot += layer is not None and i > 0 and places[i - 1][1] is not None and _new_layer(places, i)
            owner = (
                recipe.embed_from
                if i == 0
                else recipe.head_from
                if layer is None
                else recipe.path[slot].model
            )
            merge = recipe.merges[owner]
        else:
            merge = recipe.merge
        compared += _compare(recipe, merge, config, part, layer, name, t, _depth(config))
    assert compared or not METHODS[config["merge_method"]].parameters


def _new_layer(places: list[Any], i: int) -> bool:
    return (places[i][0] is not places[i - 1][0]) or places[i][1] != places[i - 1][1]


def _depth(config: dict[str, Any]) -> int:
    return max(
        int(source["layer_range"][1]) for part in reference.slices(config) for source in part["sources"]
    )


def _compare(
    recipe: Recipe,
    merge: Merge,
    config: dict[str, Any],
    part: dict[str, Any],
    layer: int | None,
    name: str,
    t: float,
    depth: int,
) -> int:
    """Hold a merge's parameters at one tensor to mergekit's, and return how many there are."""
    kind = plugins.load("methods", merge.method)
    module = (
        "embed" if name in reference.BEFORE
        else "head" if name in reference.BEHIND
        else "attn" if "self_attn" in name
        else "mlp" if "mlp" in name
        else "rest"
    )  # fmt: skip
    settled = merge.settings(name, layer, module, depth)
    for word, theirs in METHODS[merge.method].parameters.items():
        parameter = ours(merge.method, word)
        default = declared(kind)[parameter.name].default(merge.compat)
        found = settled.get(parameter.name)
        for source in merge.sources if theirs.each else (None,):
            own = found.get(source) if isinstance(found, dict) else found
            model = recipe.models[source].source if source is not None else None
            if source is not None and recipe.models[source].revision:
                model = f"{model}@{recipe.models[source].revision}"
            want = reference.value(config, part, model, word, name, t)
            want = theirs.default if want is None else want
            assert want is not None
            assert (default if own is None else own) == pytest.approx(to_ours(parameter, want)), (name, word)
    return len(METHODS[merge.method].parameters)


@pytest.mark.parametrize(
    "stem", ["frankenmerge_goliath", "frankenmerge_solar", "passthrough_pruned", "passthrough_scaled"]
)
def test_a_passthrough_is_its_slices_one_after_another(stem: str) -> None:
    config = yaml.safe_load((Path(__file__).parent / "configs" / f"{stem}.yaml").read_text(encoding="utf-8"))
    recipe = converted(Path(__file__).parent / "configs" / f"{stem}.yaml")
    want = [
        (source["model"], layer)
        for part in config["slices"]
        for source in part["sources"]
        for layer in range(*source["layer_range"])
    ]
    assert [(recipe.models[slot.model].source, slot.layer) for slot in recipe.path or ()] == want


def test_scales_along_a_slice_are_those_of_mergekit() -> None:
    recipe = converted(Path(__file__).parent / "configs" / "passthrough_gradient.yaml")
    assert [dict(slot.weights).get("down_proj", 1.0) for slot in recipe.path or ()] == [
        1.0,
        0.75,
        0.5,
        0.625,
        0.75,
    ]
