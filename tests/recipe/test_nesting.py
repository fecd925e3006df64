"""Recipes whose merges read other merges: what is refused, when two are one, and their YAML."""

from dataclasses import replace
from typing import Any

import pytest

from evomerge.errors import RecipeError
from evomerge.recipe import Ends, Group, Merge, ModelRef, Recipe, Slot, from_yaml, layer_swap, to_yaml
from evomerge.recipe.nesting import ordered

MODELS = {name: ModelRef(source=f"org/{name}") for name in ("base", "math", "lang")}
MERGED = Merge(method="ties", base="base", sources=("math", "lang"), params={"density": 0.5})
SWAPPED = layer_swap("merged", "lang", layers=4, bottom=1, top=1)
MERGES = {"merged": MERGED, "swapped": SWAPPED}


def recipe(merges: dict[str, Merge] | None = None, **changed: Any) -> Recipe:
    return Recipe(**{"models": MODELS, "merges": merges or MERGES, **changed})


WRITTEN = """\
models:
  base: {source: org/base}
  math: {source: org/math}
  lang: {source: org/lang}
merges:
  swapped:
    method: dare_linear
    base: base
    sources:
    - merged
    - lang
    params: {weight: {merged: 0.5, lang: 0.25}}
  merged:
    method: linear
    sources:
    - math
    - lang
seed: 0
"""


def test_the_yaml_is_what_a_person_would_write() -> None:
    found = from_yaml(WRITTEN)
    assert to_yaml(found) == WRITTEN
    assert from_yaml(to_yaml(recipe())) == recipe()


def test_the_output_is_the_merge_that_no_other_reads() -> None:
    for merges in (MERGES, dict(reversed(MERGES.items()))):
        found = recipe(merges)
        assert (found.embed_from, found.head_from, found.parts) == ("swapped", "swapped", ("swapped",))
        assert found.merge == SWAPPED
        assert found.in_order == ("merged", "swapped")


def test_the_models_are_those_behind_the_merges() -> None:
    found = recipe()
    assert (found.operands("swapped"), found.read_by("swapped")) == (
        ("merged", "lang"),
        ("base", "math", "lang"),
    )
    assert (found.used, found.form_from) == (("base", "math", "lang"), "base")
    assert found.methods == ("ties", "linear")
    over = recipe({"merged": MERGED, "top": Merge(method="ties", base="lang", sources=("merged",))})
    assert (over.used, over.form_from) == (("lang", "base", "math"), "lang")


def test_the_template_is_of_the_output_alone() -> None:
    assert recipe(template="base").key == recipe().key
    asked = recipe(template="math")
    assert (asked.operands("swapped"), asked.operands("merged")) == (
        ("math", "merged", "lang"),
        MERGED.models,
    )
    assert asked.used == ("math", "base", "lang")
    assert asked.key != recipe().key
    with pytest.raises(RecipeError, match="no model named `merged`"):
        recipe(template="merged")


def test_an_adapter_is_put_on_a_model() -> None:
    assert recipe().base_of("lang") == "base", "a layer swap has none, and the merge inside has one"
    top = replace(MERGED, base="merged", sources=("lang", "math"))
    found = recipe({"merged": replace(MERGED, sources=("math",)), "top": top})
    assert [found.base_of(name) for name in ("math", "lang")] == ["base", None]


def renamed(**names: str) -> Recipe:
    text = to_yaml(from_yaml(WRITTEN))
    for old, new in names.items():
        text = text.replace(old, new)
    return from_yaml(text)


def test_names_of_merges_do_not_matter() -> None:
    key = from_yaml(WRITTEN).key
    assert renamed(merged="a", swapped="z").key == renamed(merged="z", swapped="a").key == key
    assert recipe(dict(reversed(MERGES.items()))).key == recipe().key


def test_the_key_does_not_change_between_versions() -> None:
    assert recipe().key == "ac9874ca3d7089ad"


INNER = [
    replace(MERGED, method="dare_ties"),
    replace(MERGED, base="lang", sources=("math",)),
    replace(MERGED, sources=("lang", "math")),
    replace(MERGED, params={"density": 0.6}),
    replace(MERGED, params={"density": 0.5, "weight": {"math": 0.5, "lang": 1.0}}),
    replace(MERGED, groups=(Group(modules=("mlp",), params={"density": 0.1}),)),
]


@pytest.mark.parametrize("inner", INNER)
def test_any_change_of_the_merge_inside_changes_the_key(inner: Merge) -> None:
    assert recipe({"merged": inner, "swapped": SWAPPED}).key != recipe().key


def test_any_change_of_the_merge_outside_changes_the_key() -> None:
    def over(**weights: float) -> str:
        outer = Merge(method="linear", sources=("merged", "lang"), params={"weight": weights})
        return recipe({"merged": MERGED, "swapped": outer}).key

    def under(**changed: Any) -> str:
        outer = Merge(**{"method": "task_arithmetic", "base": "merged", "sources": ("lang",), **changed})
        return recipe({"merged": MERGED, "top": outer}).key

    keys = [
        recipe().key,
        over(merged=1.0, lang=0.0),
        over(merged=0.0, lang=1.0),
        under(),
        under(base="lang", sources=("merged",)),
        under(base="lang", sources=("math", "merged")),
        under(base="lang", sources=("merged", "math")),
    ]
    assert len(set(keys)) == len(keys)


def test_a_base_counts_by_its_content() -> None:
    def over(density: float, name: str = "merged") -> str:
        inner = replace(MERGED, params={"density": density})
        return recipe({name: inner, "top": Merge(method="ties", base=name, sources=("lang",))}).key

    assert over(0.5) == over(0.5, "other") != over(0.6)


def test_two_merges_of_one_content_are_told_apart_by_their_places() -> None:
    def weighed(**weights: float) -> str:
        outer = Merge(method="linear", sources=("x", "y"), params={"weight": weights})
        return recipe({"x": MERGED, "y": MERGED, "top": outer}).key

    assert weighed(x=0.25, y=0.75) == weighed(y=0.75, x=0.25) != weighed(x=0.75, y=0.25)


def test_a_path_takes_layers_of_merges_and_of_those_inside() -> None:
    path = (Slot(model="swapped", layer=0), Slot(model="merged", layer=1), Slot(model="math", layer=2))
    found = recipe(path=path)
    assert (found.parts, found.in_order) == (("swapped", "merged", "math"), ("merged", "swapped"))
    assert (found.used, from_yaml(to_yaml(found))) == (("base", "math", "lang"), found)
    only = recipe(path=path[:1])
    assert only.parts == ("swapped",)
    named = {"x": MERGED, "y": layer_swap("x", "lang", layers=4, bottom=1, top=1)}
    assert recipe(named, path=(replace(path[0], model="y"),)).key == only.key != recipe().key
    sparser = {"merged": replace(MERGED, params={"density": 0.1}), "swapped": SWAPPED}
    assert recipe(sparser, path=path[:1]).key != only.key
    with pytest.raises(RecipeError, match="the path takes nothing from the merge `swapped`"):
        recipe(path=path[1:])


def test_merges_that_go_round_in_a_circle_are_refused() -> None:
    x, y, z = (Merge(method="linear", sources=(name, "lang")) for name in "yzx")
    with pytest.raises(RecipeError, match="merges cannot read one another in a circle, and `") as found:
        recipe({"x": x, "y": y, "z": z, "top": replace(x, sources=("x", "math"))})
    circle = str(found.value).partition(" and ")[2]
    starts = ("xyzx", "yzxy", "zxyz")  # it has no beginning
    assert circle in ["`{}` reads `{}`, which reads `{}`, which reads `{}`".format(*each) for each in starts]
    with pytest.raises(RecipeError, match="in a circle, and `x` reads `x`"):
        recipe({"x": replace(x, sources=("x", "lang"))})
    with pytest.raises(RecipeError, match="in a circle, and `x` reads `x`"):
        recipe({"x": replace(x, base="x", sources=("lang",))}, path=(Slot(model="x", layer=0),))


def test_merges_come_after_those_that_they_read() -> None:
    assert ordered({"c": ("b", "a"), "b": ("a",), "a": ()}) == ("a", "b", "c")


def test_a_merge_called_like_the_only_models_beside_it_is_no_circle() -> None:
    """A recipe of one merge has nothing else that its names could mean."""
    found = recipe({"math": MERGED})
    assert (found.used, found.in_order) == (("base", "math", "lang"), ("math",))
    assert found.key == recipe({"merged": MERGED}).key


@pytest.mark.parametrize(
    ("merges", "changed", "message"),
    [
        (
            {"merged": MERGED, "other": MERGED},
            {},
            r"needs exactly one merge that no other reads, found 2 \(`merged`, `other`\)",
        ),
        (
            {"math": MERGED, "top": replace(SWAPPED, sources=("math", "lang"))},
            {},
            "`math` is both a model and a merge; give one of the two another name",
        ),
        (
            {"merged": MERGED, "top": Merge(method="linear", sources=("mergd", "lang"))},
            {},
            r"no model or merge named `mergd`\. Did you mean `merged`",
        ),
        (
            {"merged": MERGED, "top": Merge(method="linear", base="tops", sources=("merged",))},
            {},
            r"no model or merge named `tops`\. Known: base, lang, math, merged",
        ),
        (
            MERGES,
            {"tokenizer": "union"},
            "`tokenizer` matches the tokens of models, and `swapped` reads the merge `merged`; leave",
        ),
        (
            MERGES,
            {"tokenizer": "base", "path": (Slot(model="swapped", layer=0),)},
            "`tokenizer` matches the tokens of models, and `swapped` reads the merge `merged`",
        ),
        (MERGES, {"ends": Ends(embed="merged")}, "`ends` belong to a `path`"),
    ],
)
def test_a_mistake_is_refused(merges: dict[str, Merge], changed: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        recipe(merges, **changed)
