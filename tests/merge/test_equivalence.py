"""Recipes with one canonical key build the same tensors; rewritings that change nothing keep the key."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evomerge import plugins
from evomerge.errors import EvomergeError
from evomerge.merge.equivalence import canonical_key
from evomerge.merge.method import statistic_of
from evomerge.merge.tensors import build_tensors
from evomerge.parameters import Choice, declared
from evomerge.recipe import Ends, Group, Merge, ModelRef, Recipe, Slot
from tests.merge.test_path import CONFIG, DEPTH, tensors

MODELS = ("base", "math", "lang", "code")
WEIGHTS = {name: tensors(seed) for seed, name in enumerate(MODELS)}
REFS = {name: ModelRef(source=name, digest=f"blake2b:{name}") for name in MODELS}
METHODS = tuple(name for name in plugins.names("methods") if not statistic_of(plugins.load("methods", name)))


def recipe(merge: Merge | None = None, **rest: Any) -> Recipe:
    merges = {"merged": merge} if merge else {}
    return Recipe(models=REFS, **{"merges": merges, **rest})


def arithmetic(weight: Mapping[str, float], method: str = "task_arithmetic", **params: Any) -> Merge:
    return Merge(method=method, base="base", sources=tuple(weight), params={"weight": dict(weight), **params})


def key(*merge: Merge, layers: int | None = None, **rest: Any) -> str:
    return canonical_key(recipe(*merge, **rest), layers=layers)


def build(asked: Recipe) -> dict[str, Tensor]:
    return build_tensors(asked, WEIGHTS, dict.fromkeys(WEIGHTS, CONFIG))[0]


ORDERED = arithmetic({"math": 0.6, "lang": 0.4})


@pytest.mark.parametrize(
    "method", ["linear", "task_arithmetic", "ties", "dare_linear", "della", "breadcrumbs"]
)
def test_the_order_of_sources_does_not_count_where_they_are_added_up(method: str) -> None:
    params: dict[str, Any] = {"density": {"math": 0.5, "lang": 0.3}} if method != "linear" else {}
    if method in ("linear", "task_arithmetic"):
        params = {}
    one = Merge(
        method=method, base="base", sources=("math", "lang"),
        params={"weight": {"math": 0.6, "lang": 0.3}, **params},
    )  # fmt: skip
    assert key(one) == key(replace(one, sources=("lang", "math")))
    assert recipe(one).key != recipe(replace(one, sources=("lang", "math"))).key


def test_the_order_counts_in_opcm() -> None:
    one = Merge(method="opcm", base="base", sources=("math", "lang"))
    assert key(one) != key(replace(one, sources=("lang", "math")))
    orders = [{"math": 0.50001, "lang": 0.50002}, {"math": 0.50002, "lang": 0.50001}]
    assert len({key(replace(one, params={"order": order})) for order in orders}) == 2


@pytest.mark.parametrize("method", ["linear", "task_arithmetic", "ties", "dare_ties", "compeft"])
def test_a_source_of_no_weight_is_no_source(method: str) -> None:
    extra: dict[str, Any] = {"scope": "tensor"} if method == "compeft" else {}
    both = arithmetic({"math": 0.6, "lang": 0.0}, method, **extra)
    assert key(both) == key(arithmetic({"math": 0.6}, method, **extra))


def test_a_source_of_no_weight_votes_where_weights_do_not() -> None:
    both = replace(arithmetic({"math": 0.6, "lang": 0.0}, "ties"), compat="peft")
    assert key(both) != key(replace(arithmetic({"math": 0.6}, "ties"), compat="peft"))


def test_a_tiny_weight_is_none_in_a_sum_and_decides_alone_in_a_vote() -> None:
    tiny = {"math": 0.6, "lang": 1e-7}
    assert key(arithmetic(tiny)) == key(arithmetic({"math": 0.6}))
    assert key(arithmetic(tiny, "ties", density=0.3)) != key(arithmetic({"math": 0.6}, "ties", density=0.3))


def test_cuts_over_the_whole_model_see_what_has_no_weight_somewhere() -> None:
    def ties(first: float) -> Merge:
        group = Group(modules=("attn", "mlp", "rest"), layers=(0, 0), params={"weight": first})
        return replace(arithmetic({"math": 1.0}, "ties", scope="model", density=0.4), groups=(group,))

    alone = Merge(method="ties", base="base", sources=("math",), params={"scope": "model", "density": 0.4})
    path = tuple(Slot(model="merged", layer=layer) for layer in (1, 2))
    assert key(ties(1.0), path=path) != key(ties(0.0), path=path)
    assert key(ties(1.0), path=path) == key(alone, path=path)


def test_one_source_of_weight_1_is_that_source_and_none_is_the_base() -> None:
    ends = Ends(embed="base", head="base")

    def layers(model: str, *merge: Merge) -> str:
        return key(*merge, path=(Slot(model="base", layer=0), Slot(model=model, layer=1)), ends=ends)

    whole = arithmetic({"math": 1.0, "lang": 0.0})
    assert layers("merged", whole) == layers("math") != layers("lang")
    assert layers("merged", arithmetic({"math": 0.0, "lang": 0.0})) == layers("base")
    assert layers("merged", arithmetic({"math": 0.0, "lang": 0.0}, "ties")) == layers("base")
    mean = Merge(method="linear", sources=("math", "lang"), params={"weight": {"math": 0.3, "lang": 0.0}})
    assert layers("merged", mean) == layers("math")
    assert layers("merged", replace(mean, params={"weight": 0.3})) != layers("math")


def test_a_path_is_what_its_layers_hold() -> None:
    here = Group(modules=("attn", "mlp", "rest"), layers=(1, 1), params={"weight": 1.0})
    merge = Merge(
        method="task_arithmetic", base="base", sources=("math",), params={"weight": 0.0}, groups=(here,)
    )
    ends = Ends(embed="base", head="base")
    first, second = Slot(model="merged", layer=0), Slot(model="merged", layer=1)
    plain = (Slot(model="base", layer=0), Slot(model="math", layer=1))
    assert key(merge, path=(first, second), ends=ends) == key(path=plain, ends=ends)
    assert key(merge, path=(second, first), ends=ends) != key(path=plain, ends=ends)
    norms = (first, replace(second, norms=0))
    other = (plain[0], Slot(model="math", layer=1, norms=0))
    assert key(merge, path=norms, ends=ends) != key(path=other, ends=ends)  # math's norms are not the base's


def test_a_tied_head_is_its_own_models_embedding() -> None:
    """Both heads are `base`'s by what their merge holds; that of the second is math's embedding if tied."""
    swap = Merge(
        method="task_arithmetic", base="base", sources=("math",), params={"weight": 0.0},
        groups=(Group(modules=("embed",), params={"weight": 1.0}),),
    )  # fmt: skip
    path = (Slot(model="base", layer=0), Slot(model="merged", layer=1))
    one, other = Ends(embed="base", head="base"), Ends(embed="base", head="merged")
    assert key(swap, path=path, ends=one) != key(swap, path=path, ends=other)


def test_groups_with_equal_parameters_are_one() -> None:
    def split(*spans: tuple[int, int]) -> Merge:
        groups = tuple(
            Group(modules=(module,), layers=span, params={"weight": {"math": 0.5, "lang": 0.2}})
            for module in ("attn", "mlp", "rest")
            for span in spans
        )
        return replace(
            arithmetic({"math": 0.9, "lang": 0.9}, density=1.0, method="dare_linear"), groups=groups
        )

    one, two = key(split((0, 2))), key(split((0, 0), (1, 2)))
    assert one == two != key(split((0, 1)))
    everywhere = Group(modules=("mlp", "rest", "attn"), params={"weight": {"math": 0.5, "lang": 0.2}})
    merge = replace(ORDERED, params={"weight": 0.9}, groups=(everywhere,))
    assert key(merge, layers=DEPTH) == key(split((0, 0), (1, 2)), layers=DEPTH)


def test_numbers_count_to_six_decimals_where_nobody_can_tell() -> None:
    assert key(arithmetic({"math": 0.30000001})) == key(arithmetic({"math": 0.3}))
    assert key(arithmetic({"math": 0.300002})) != key(arithmetic({"math": 0.3}))
    for name, close in (("lambda", 1.3), ("density", 0.7)):
        merge = arithmetic({"math": 1.0}, "ties")
        near = [key(replace(merge, params={name: value})) for value in (close, close + 1e-8, close + 2e-6)]
        assert near[0] == near[1] != near[2]


@pytest.mark.parametrize(
    ("method", "name", "values"),
    [
        ("consensus", "k", (2.0, 2.00001)),
        ("fisher", "floor", (1e-8, 1e-6)),
        ("nearswap", "limit", (1e-5, 2e-5)),
        ("ties", "weight", (1.0, 1.00001)),
        ("dare_linear", "density", (1.0, 0.99999)),
        ("dare_linear", "density", (1e-5, 2e-5)),
    ],
)
def test_numbers_by_which_something_jumps_count_as_they_are(
    method: str, name: str, values: tuple[float, float]
) -> None:
    sources = ("math",) if method == "nearswap" else ("math", "lang")
    one = Merge(method=method, base="base", sources=sources, params={name: values[0]})
    assert key(one) != key(replace(one, params={name: values[1]}))


def test_seeds_and_names_count_only_where_something_is_drawn() -> None:
    drawn = arithmetic({"math": 0.5}, "dare_ties", density=0.5)
    assert key(drawn, seed=1) != key(drawn, seed=2)
    for merge in (
        ORDERED,
        arithmetic({"math": 0.5}, "dare_ties", density=1.0),
        arithmetic({"math": 0.5}, "dare_ties", density=0.5, mask_strategy="magnitude"),
    ):
        assert key(merge, seed=1) == key(merge, seed=2)

    def named(name: str, density: float) -> str:
        models = {"base": REFS["base"], name: REFS["math"]}
        merge = Merge(method="dare_linear", base="base", sources=(name,), params={"density": density})
        return canonical_key(Recipe(models=models, merges={"m": merge}))

    assert named("one", 1.0) == named("other", 1.0)
    assert named("one", 0.5) != named("other", 0.5)


def test_density_1_is_no_mask() -> None:
    weight = {"math": 0.5, "lang": 0.3}
    plain = key(arithmetic(weight))
    assert plain == key(arithmetic(weight, "dare_linear", density=1.0))
    assert plain == key(arithmetic(weight, "breadcrumbs", density=1.0, gamma=0.0))
    assert plain != key(arithmetic(weight, "dare_linear", density=0.9))


def test_defaults_said_or_not_are_the_same() -> None:
    plain = arithmetic({"math": 1.0}, "ties")
    assert key(plain) == key(replace(plain, params={"density": 1.0, "lambda": 1, "scope": "auto"}))
    assert key(plain) == key(replace(plain, params={"k_percent": 100}))
    assert key(plain) != key(replace(plain, params={"scope": "model"}))


def test_template_dtype_and_head_count() -> None:
    keys = {
        key(ORDERED, **each) for each in ({}, {"dtype": "float32"}, {"untie": True}, {"template": "math"})
    }
    assert len(keys) == 4
    mean = Merge(method="linear", sources=("math", "lang"))
    assert key(mean) != key(replace(mean, sources=("lang", "math")))  # which gives its config and its words
    assert key(mean, template="base") == key(replace(mean, sources=("lang", "math")), template="base")


def test_what_no_digest_pins_may_change_the_base_of_its_merge() -> None:
    def layer(base: str) -> str:
        refs = {name: ModelRef(source=name) for name in MODELS}
        merge = Merge(method="task_arithmetic", base=base, sources=("math",), params={"weight": 0.5})
        path = (Slot(model="code", layer=0), Slot(model="math", layer=1), Slot(model="merged", layer=2))
        return canonical_key(Recipe(models=refs, merges={"merged": merge}, path=path))

    assert layer("base") != layer("lang")


def test_values_along_the_layers_are_compared_as_they_are_written() -> None:
    def along(*anchors: float) -> Merge:
        return replace(ORDERED, params={"weight": {"math": anchors, "lang": 0.4}})

    assert key(along(0.2, 0.6)) == key(along(0.2, 0.6))
    assert key(along(0.2, 0.6)) != key(along(0.2, 0.7))
    swapped = replace(along(0.2, 0.6), sources=("lang", "math"))
    assert key(swapped) != key(along(0.2, 0.6))


def test_a_recipe_that_cannot_be_built_is_like_no_other() -> None:
    wrong = [arithmetic({"math": 1.0}, density=density) for density in (0.5, 0.6)]
    assert key(wrong[0]) != key(wrong[1])
    assert key(Merge(method="none", sources=("math",))) == key(Merge(method="none", sources=("math",)))


def test_matched_tokens_depend_on_every_model() -> None:
    both, one = arithmetic({"math": 0.6, "lang": 0.0}), arithmetic({"math": 0.6})
    assert key(both, tokenizer="union") != key(one, tokenizer="union")


@pytest.mark.parametrize("seed", range(3))
def test_random_recipes_of_one_key_build_the_same_tensors(seed: int) -> None:
    found: dict[str, list[Recipe]] = defaultdict(list)
    draw = random.Random(seed)
    for _ in range(400):
        asked = any_recipe(draw)
        found[canonical_key(asked, layers=DEPTH)].append(asked)
    alike = [recipes for recipes in found.values() if len({each.key for each in recipes}) > 1]
    assert len(alike) >= 15, "too few recipes meet for this to show anything"
    for recipes in alike:
        first, *others = [made for each in recipes if (made := built(each)) is not None] or [{}]
        for other in others:
            assert list(other) == list(first)
            for name, value in first.items():
                torch.testing.assert_close(other[name], value, rtol=1e-4, atol=2e-4, msg=f"{recipes}")


def built(asked: Recipe) -> dict[str, Tensor] | None:
    """Return the tensors, or None of a recipe that cannot be built."""
    try:
        return build(asked)
    except EvomergeError:
        return None


def any_recipe(draw: random.Random) -> Recipe:
    """Return one of few enough recipes that some of them are one another in other words."""
    merges = {"inner": any_merge(draw, ("math", "lang"))}
    form = draw.choice(["merge", "merge", "nested", "path"])
    seed = draw.randrange(2)
    if form == "merge":
        return Recipe(models=REFS, merges=merges, seed=seed)
    if form == "nested":
        outer = any_merge(draw, ("inner", "code"))
        merges["outer"] = outer
        return Recipe(models=REFS, merges=merges, seed=seed)
    slots = (Slot(model=draw.choice(["inner", "math", "base"]), layer=draw.randrange(2)) for _ in range(1))
    ends = Ends(embed="base", head=draw.choice(["base", "inner"]))
    path = (*slots, Slot(model="inner", layer=1, norms=draw.choice([None, 0, 1])))
    return Recipe(models=REFS, merges=merges, path=path, ends=ends, seed=seed)


def any_merge(draw: random.Random, sources: tuple[str, str]) -> Merge:
    name = draw.choice([*METHODS, "linear", "task_arithmetic", "ties", "dare_linear", "dare_ties"])
    kind = plugins.load("methods", name)
    count = min(draw.choice([1, 2, 2]), kind.sources[1] or 2)
    chosen = tuple(draw.sample(sources, max(count, kind.sources[0])))
    if "inner" in sources and "inner" not in chosen:  # every merge must be read
        chosen = ("inner",)
    groups = []
    for span in draw.choice([(), ((0, 2),), ((0, 0), (1, 2)), ((0, 0),)]):
        groups.append(
            Group(modules=("attn", "mlp", "rest"), layers=span, params=any_params(draw, kind, chosen))
        )
    return Merge(
        method=name,
        base="base",
        sources=chosen,
        params=any_params(draw, kind, chosen),
        groups=tuple(groups),
        compat=draw.choice(["evomerge", draw.choice(kind.compats)]),
    )


def any_params(draw: random.Random, kind: Any, sources: tuple[str, ...]) -> dict[str, Any]:
    params: dict[str, Any] = {}
    for name, parameter in declared(kind).items():
        if name == "weight":
            params[name] = {source: draw.choice([0.0, 0.0, 0.5, 1.0, 1.000001]) for source in sources}
        elif name == "density":
            params[name] = draw.choice(
                [0.5, 1.0, 1.0, {source: draw.choice([0.5, 1.0]) for source in sources}]
            )
        elif isinstance(parameter.spec, Choice) and draw.random() < 0.3:
            params[name] = draw.choice(parameter.spec.options)
    return params
