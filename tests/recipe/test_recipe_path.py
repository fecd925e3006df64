"""Recipes with a path: what is refused, when two are one, and their YAML."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.errors import RecipeError
from evomerge.recipe import Ends, Merge, ModelRef, Recipe, Slot, from_yaml, to_yaml
from evomerge.recipe.path import LONGEST

MODELS = {name: ModelRef(source=f"org/{name}") for name in ("base", "a", "b")}
AB = Merge(method="ties", base="base", sources=("a", "b"))
PATH = (
    Slot(model="ab", layer=0),
    Slot(model="b", layer=1, scale=0.93),
    Slot(model="b", layer=1, norms=2, weights=(("o_proj", 0.5), ("*", 2.0))),
)


def recipe(*path: Slot, **changed: Any) -> Recipe:
    content = {"models": MODELS, "merges": {"ab": AB}, "path": path or PATH, **changed}
    return Recipe(**content)


WRITTEN = """\
models:
  base: {source: org/base}
  a: {source: org/a}
  b: {source: org/b}
merges:
  ab:
    method: ties
    base: base
    sources:
    - a
    - b
path:
- {model: ab, layer: 0}
- {model: b, layer: 1, scale: 0.93}
- {model: b, layer: 1, norms: 2, weights: {o_proj: 0.5, '*': 2.0}}
ends: {head: a, weights: {lm_head: 2.0}}
seed: 0
"""


def test_the_yaml_is_what_a_person_would_write() -> None:
    written = recipe(ends=Ends(head="a", weights=(("lm_head", 2.0),)))
    assert to_yaml(written) == WRITTEN
    assert from_yaml(WRITTEN) == written


def test_a_recipe_of_layers_alone_has_no_merges() -> None:
    found = from_yaml("{models: {1: ./one}, path: [{model: 1, layer: 0}]}")
    assert found == Recipe(models={"1": ModelRef(source="./one")}, path=(Slot(model="1", layer=0),))
    assert "merges" not in to_yaml(found)
    assert found.methods == ()


def test_the_parts_of_a_path_are_known_by_name() -> None:
    found = recipe()
    assert (found.embed_from, found.head_from, found.parts) == ("ab", "b", ("ab", "b"))
    assert (found.form_from, found.used, found.methods) == ("base", ("base", "a", "b"), ("ties",))
    turned = recipe(*PATH[::-1], ends=Ends(embed="a"))
    assert (turned.embed_from, turned.head_from, turned.parts) == ("a", "ab", ("a", "b", "ab"))
    assert (turned.form_from, turned.used) == ("a", ("a", "b", "base"))


def test_what_an_adapter_changes_is_needed_too() -> None:
    models = {**MODELS, "b": ModelRef(source="org/b", adapts="c"), "c": ModelRef(source="org/c")}
    assert recipe(models=models).used == ("base", "a", "b", "c")
    assert [recipe().base_of(name) for name in ("a", "base")] == ["base", None]
    two = recipe(
        Slot(model="ab", layer=0), Slot(model="x", layer=0), merges={"ab": AB, "x": replace(AB, base="b")}
    )
    assert two.base_of("a") is None


def test_tokens_are_matched_only_where_both_ends_are_of_one_merge() -> None:
    found = recipe(tokenizer="union", ends=Ends(head="ab"))
    assert from_yaml(to_yaml(found)) == found
    assert found.key != recipe(ends=Ends(head="ab")).key
    with pytest.raises(RecipeError, match="embedding and head of one merge, found `ab` and `b`"):
        recipe(tokenizer="union")
    with pytest.raises(RecipeError, match="embedding and head of one merge"):
        recipe(tokenizer="union", ends=Ends(embed="b"))


def test_a_path_is_not_one_merge() -> None:
    with pytest.raises(RecipeError, match="has a path"):
        _ = recipe().merge


def test_the_key_does_not_change_between_versions() -> None:
    assert recipe().key == "6ad428439278a8a7"


def test_what_is_said_in_other_words_is_the_same_recipe() -> None:
    by_another_name = tuple(replace(slot, model="m") if slot.model == "ab" else slot for slot in PATH)
    same = [
        recipe(*by_another_name, merges={"m": AB}),
        recipe(ends=Ends(embed="ab", head="b")),
        recipe(replace(PATH[0], norms=0), *PATH[1:]),
        recipe(replace(PATH[0], scale=1), *PATH[1:]),
        recipe(models={**MODELS, "unused": ModelRef(source="org/c")}),
    ]
    assert {each.key for each in same} == {recipe().key}


def test_a_merge_given_twice_is_the_same_merge() -> None:
    twice = recipe(Slot(model="x", layer=0), Slot(model="y", layer=1), merges={"x": AB, "y": AB})
    once = recipe(Slot(model="x", layer=0), Slot(model="x", layer=1), merges={"x": AB})
    assert twice.key == once.key


CHANGED: list[dict[str, Any]] = [
    {"path": PATH[::-1]},
    {"path": PATH[:2]},
    {"path": None},
    {"path": (PATH[0], replace(PATH[1], scale=0.94), PATH[2])},
    {"path": (PATH[0], replace(PATH[1], layer=2), PATH[2])},
    {"path": (PATH[0], replace(PATH[1], model="a"), PATH[2])},
    {"path": (*PATH[:2], replace(PATH[2], norms=None))},
    {"path": (*PATH[:2], replace(PATH[2], weights=PATH[2].weights[::-1]))},
    {"path": (*PATH[:2], replace(PATH[2], weights=()))},
    {"ends": Ends(embed="a")},
    {"ends": Ends(head="a")},
    {"ends": Ends(weights=(("norm", 2.0),))},
    {"merges": {"ab": replace(AB, method="dare_ties")}},
    {"merges": {"ab": replace(AB, params={"normalize": True})}},
    {"dtype": "float32"},
    {"seed": 1},
    {"untie": True},
    {"models": {**MODELS, "a": ModelRef(source="org/other")}},
]


@pytest.mark.parametrize("changed", CHANGED, ids=lambda changed: next(iter(changed)))
def test_any_change_changes_the_key(changed: dict[str, Any]) -> None:
    assert recipe(**changed).key != recipe().key


def test_true_is_not_one_in_a_merge() -> None:
    """Python has them equal; two merges that differ so are two."""
    asked = [replace(AB, params={"normalize": value}) for value in (True, 1.0)]
    both = recipe(
        Slot(model="x", layer=0), Slot(model="y", layer=1), merges=dict(zip("xy", asked, strict=True))
    )
    one = recipe(Slot(model="x", layer=0), Slot(model="x", layer=1), merges={"x": asked[0]})
    assert both.key != one.key


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "{model: ab, layer: 0}",
            "{model: abb, layer: 0}",
            r"no model or merge named `abb`\. Did you mean `ab`",
        ),
        ("{head: a,", "{head: c,", "no model or merge named `c`"),
        (
            "scale: 0.93",
            "scale: 0",
            r"`path\[1\]`: the scale of layer 1 of `b` must be above 0 and finite, found 0",
        ),
        ("scale: 0.93", "scale: -1", "must be above 0"),
        ("scale: 0.93", "scale: .inf", "must be above 0 and finite"),
        ("scale: 0.93", "scale: .nan", "must be above 0 and finite"),
        ("scale: 0.93", "scale: 1" + 400 * "0", "must be above 0 and finite"),
        ("scale: 0.93", "scale: half", r"`path\[1\]\.scale` must be a number, found 'half'"),
        (
            "layer: 1, scale",
            "layer: -1, scale",
            r"`path\[1\]\.layer` must be a whole number from 0, found -1",
        ),
        ("layer: 1, scale", "layer: 1.0, scale", r"`path\[1\]\.layer` must be a whole number from 0"),
        ("layer: 1, scale: 0.93", "scale: 0.93", r"`path\[1\]` needs `layer`"),
        ("scale: 0.93", "scal: 0.93", r"`path\[1\]`: no key named `scal`\. Did you mean `scale`"),
        ("norms: 2", "norms: two", r"`path\[2\]\.norms` must be a whole number from 0, found 'two'"),
        ("o_proj: 0.5", "o_proj: x", r"`path\[2\]\.weights\.o_proj` must be a number, found 'x'"),
        ("o_proj: 0.5", "o_proj: .inf", "the factor of the weights `o_proj` must be finite, found inf"),
        ("head: a", "tail: a", r"`ends`: no key named `tail`"),
        ("  ab:", "  a:", "`a` is both a model and a merge"),
        ("{model: ab, layer: 0}", "{model: a, layer: 0}", "the path takes nothing from the merge `ab`"),
    ],
)
def test_a_mistake_is_refused(old: str, new: str, message: str) -> None:
    assert old in WRITTEN
    with pytest.raises(RecipeError, match=message):
        from_yaml(WRITTEN.replace(old, new, 1))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("path: []", "a path needs at least one layer, found none"),
        ("path:", "`path` must be a list, found None"),
        ("ends: {embed: a}", "`ends` belong to a `path`, and this recipe has none"),
        ("seed: 0", "a recipe without a path needs exactly one merge that no other reads, found 2"),
    ],
)
def test_a_recipe_needs_a_path_or_one_merge(path: str, message: str) -> None:
    x = "x: {method: linear, sources: [a]}"
    merges = f"{{{x}, {x.replace('x:', 'y:')}}}" if "one merge" in message else f"{{{x}}}"
    with pytest.raises(RecipeError, match=message):
        from_yaml(f"models: {{a: ./a}}\nmerges: {merges}\n{path}")


def test_a_factor_given_twice_is_refused() -> None:
    with pytest.raises(RecipeError, match="the weights `o_proj` have two factors"):
        Slot(model="a", layer=0, weights=(("o_proj", 1.0), ("o_proj", 2.0)))


words = st.text(st.characters(codec="utf-8"), min_size=1, max_size=8) | st.sampled_from(
    ["yes", "1", "~", "*"]
)
factors = st.dictionaries(words, st.floats(allow_nan=False, allow_infinity=False), max_size=3).map(
    lambda table: tuple(table.items())
)


@st.composite
def paths(draw: st.DrawFn) -> Recipe:
    models = draw(st.lists(words, min_size=1, max_size=3, unique=True))
    slots = st.builds(
        Slot,
        model=st.sampled_from(models),
        layer=st.integers(0, 90),
        scale=st.floats(0.01, 100.0),
        norms=st.none() | st.integers(0, 90),
        weights=factors,
    )
    names = st.none() | st.sampled_from(models)
    return Recipe(
        models={name: ModelRef(source=name) for name in models},
        path=tuple(draw(st.lists(slots, min_size=1, max_size=4))),
        ends=draw(st.builds(Ends, embed=names, head=names, weights=factors)),
        seed=draw(st.integers()),
    )


@settings(deadline=None, derandomize=True, max_examples=60)
@given(paths())
def test_yaml_and_back_gives_the_same_recipe(recipe: Recipe) -> None:
    text = to_yaml(recipe)
    again = from_yaml(text)
    assert again == recipe
    assert again.key == recipe.key
    assert to_yaml(again) == text


def test_a_path_beyond_all_bounds_is_refused_by_its_slot() -> None:
    path = tuple(Slot(model="a", layer=i % 5) for i in range(LONGEST + 2))
    Recipe(models={"a": ModelRef(source="./a")}, path=path[:LONGEST])
    with pytest.raises(RecipeError, match=r"slot 1024 \(layer 4 of `a`\) lies beyond .* this one has 1026"):
        Recipe(models={"a": ModelRef(source="./a")}, path=path)
