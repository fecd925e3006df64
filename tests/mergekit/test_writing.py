"""Recipes in mergekit's words: the same parameters at each tensor, or a refusal that names the key."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest
import yaml

from evomerge.errors import ConversionError
from evomerge.mergekit.reading import from_mergekit
from evomerge.mergekit.writing import to_mergekit
from evomerge.recipe import Ends, Filtered, Group, Merge, ModelRef, Recipe, Slot
from evomerge.recipe.merge import IN_LAYERS
from tests.mergekit import reference
from tests.mergekit.test_corpus import _compare

MODELS = {name: ModelRef(source=f"o/{name}") for name in ("base", "a", "b")}


def recipe(merge: Merge, **others: Any) -> Recipe:
    return Recipe(models=MODELS, merges={"merged": merge}, **others)


def ties(*groups: Group, **params: Any) -> Merge:
    return Merge(method="ties", base="base", sources=("a", "b"), params=params, groups=groups)


SEARCHED = ties(
    Group(layers=(0, 3), modules=("attn",), params={"weight": {"a": 0.1, "b": 0.2}, "density": 0.5}),
    Group(layers=(0, 3), modules=("mlp", "rest"), params={"weight": {"a": 0.3, "b": 0.4}}),
    Group(layers=(4, 9), modules=IN_LAYERS, params={"weight": {"a": 0.5, "b": 0.6}}),
    Group(modules=("embed",), params={"weight": {"a": 0.7, "b": 0.8}}),
    Group(modules=("head",), params={"weight": {"a": 0.9, "b": 1.0}}),
    density=0.75,
)
CUT = ties(
    Group(layers=(0, 9), modules=("attn",), params={"weight": (0.0, 0.3, 0.9)}),
    Group(layers=(0, 4), modules=("mlp",), params={"weight": 0.3}),
    Group(layers=(5, 9), modules=("mlp",), params={"weight": {"a": (0.1, 0.2), "b": 0.7}}),
    Group(layers=(0, 9), modules=("rest",), params={"weight": 0.25}),
    Group(modules=("embed", "head"), params={"weight": 0.5}),
)
ANCHORED = ties(weight={"a": (0.1, 0.9, 0.3), "b": 0.5}, density=(0.2, 0.4))
FILTERED = ties(weight=(Filtered(filter="up_proj", value=(0.1, 0.9)), Filtered(value=0.4)))
BY_MODULE = ties(
    Group(modules=("attn",), params={"weight": 0.1}),
    Group(modules=("mlp",), params={"weight": (0.2, 0.8)}),
    Group(modules=("rest", "embed"), params={"weight": 0.3}),
    Group(modules=("head",), params={"weight": 0.4}),
)


@pytest.mark.parametrize(
    "merge",
    [SEARCHED, CUT, ANCHORED, FILTERED, BY_MODULE],
    ids=["runs", "cut", "anchors", "filters", "modules"],
)
def test_mergekit_looks_up_what_the_recipe_says(merge: Merge) -> None:
    depth = 10
    written = recipe(merge)
    config = yaml.safe_load(to_mergekit(written, layers=depth)[0])
    slices = reference.slices(config)
    for part in slices:
        for source in part["sources"]:
            if source["layer_range"] == [0, reference.DEPTH]:
                source["layer_range"] = [0, depth]
    whole = {**config, "slices": slices}
    names = set()
    for part, layer, name, t in reference.places(whole):
        _compare(written, merge, whole, part, layer, name, t, depth)
        names.add(name)
    assert len(names) == depth * len(reference.INSIDE) + 3


def test_a_searched_recipe_has_filters_only_where_module_groups_differ() -> None:
    config = yaml.safe_load(to_mergekit(recipe(SEARCHED))[0])
    first, last = config["slices"]
    assert [each["layer_range"] for each in first["sources"]] == [[0, 4]] * 3
    assert first["sources"][1]["parameters"]["weight"] == [
        {"filter": "embed_tokens", "value": 0.7},
        {"filter": "self_attn", "value": 0.1},
        {"value": 0.3},
    ]
    assert last["sources"][2]["parameters"]["weight"] == [
        {"filter": "lm_head", "value": 1.0},
        {"filter": "model.norm.", "value": 1.0},
        {"value": 0.6},
    ]


def test_dtypes_are_those_in_which_both_agree() -> None:
    merge = Merge(method="linear", sources=("a", "b"))
    assert yaml.safe_load(to_mergekit(recipe(merge, dtype="bfloat16"))[0])["out_dtype"] == "bfloat16"
    config = yaml.safe_load(to_mergekit(recipe(merge, dtype="float32"))[0])
    assert (config["dtype"], "out_dtype" in config) == ("float32", False)
    assert any("dtype" in note for note in to_mergekit(recipe(merge))[1])


def test_a_default_that_mergekit_does_not_share_is_said() -> None:
    merge = Merge(method="della", base="base", sources=("a", "b"), compat="mergekit")
    parameters = yaml.safe_load(to_mergekit(recipe(merge))[0])["parameters"]
    assert parameters == {"weight": 1.0, "density": 0.5}


def stack(*slots: Slot, **others: Any) -> Recipe:
    return Recipe(models=MODELS, path=slots, **others)


REFUSED = {
    "`merges.merged.method` is `consensus`": recipe(
        Merge(method="consensus", base="base", sources=("a", "b"))
    ),
    "`merges.merged.compat` must be `mergekit`": recipe(
        Merge(method="dare_ties", base="base", sources=("a", "b"))
    ),
    "`merges.merged.compat` is `official`": recipe(
        Merge(method="ties", base="base", sources=("a", "b"), compat="official")
    ),
    "`merges.merged.params.scope` has no equal": recipe(ties(scope="model")),
    "`merges.merged.params.merge` has no equal": recipe(
        ties(Group(layers=(0, 1), modules=IN_LAYERS, params={"merge": "sum"}))
    ),
    "`merges.merged.params` changes along all layers": recipe(
        ties(Group(layers=(0, 1), modules=("mlp",), params={"weight": 0.1}), weight=(0.1, 0.9))
    ),
    "`merges.merged.groups.weight` has filters inside": recipe(
        ties(
            Group(layers=(0, 1), modules=("mlp",), params={"weight": (Filtered(filter="up", value=0.1),)}),
            Group(layers=(0, 1), modules=("attn", "rest"), params={"weight": 0.5}),
        )
    ),
    "`untie` has no equal": recipe(ties(), untie=True),
    "`template` has no equal": recipe(Merge(method="linear", sources=("a", "b")), template="b"),
    "`path[1].scale` multiplies": stack(Slot(model="a", layer=0), Slot(model="b", layer=1, scale=0.5)),
    "`path[0].norms` takes norms": stack(Slot(model="a", layer=0, norms=1)),
    "`ends.head` is `b`": stack(Slot(model="a", layer=0), ends=Ends(head="b")),
    "`ends.weights`": stack(Slot(model="a", layer=0), ends=Ends(weights=(("lm_head", 0.5),))),
}


@pytest.mark.parametrize("refused", REFUSED.values(), ids=REFUSED)
def test_what_mergekit_cannot_say_is_refused_by_key(refused: Recipe, request: pytest.FixtureRequest) -> None:
    said = next(key for key, value in REFUSED.items() if value is refused)
    with pytest.raises(ConversionError, match=re.escape(said)):
        to_mergekit(refused)


def test_all_that_is_wrong_is_told_at_once() -> None:
    wrong = replace(recipe(ties()), untie=True, merges={"merged": replace(ties(), compat="peft")})
    with pytest.raises(ConversionError) as told:
        to_mergekit(wrong, "my.yaml")
    assert len(str(told.value).splitlines()) == 2
    assert all(line.startswith("my.yaml: `") for line in str(told.value).splitlines())


def test_a_stack_of_two_methods_is_a_document_for_each_merge() -> None:
    merges = {
        "one": Merge(method="slerp", base="a", sources=("b",), params={"t": 0.3}),
        "two": Merge(method="linear", sources=("a", "b"), params={"weight": {"a": 0.2, "b": 0.8}}),
    }
    path = (*(Slot(model="one", layer=i) for i in range(3)), *(Slot(model="two", layer=i) for i in (2, 3)))
    stacked = Recipe(models={name: MODELS[name] for name in "ab"}, merges=merges, path=path)
    text, _ = to_mergekit(stacked)
    assert [document.get("name") for document in yaml.safe_load_all(text)] == ["one", "two", None]
    assert from_mergekit(text)[0].key == stacked.key
