"""Merges of merges: the same numbers as in two steps in float32, rounded once."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evomerge import merge_tensors
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.tensors import DictSource, Library, open_library
from evomerge.errors import MergeError, RecipeError
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Plan
from evomerge.merge.planning import compile_plan
from evomerge.merge.tensors import build_tensors
from evomerge.recipe import Group, Merge, ModelRef, Recipe, Slot, layer_swap
from tests.checkpoints.making import save_model, word_level
from tests.merge.conftest import WriteCheckpoint
from tests.merge.test_adapters import adapter
from tests.merge.test_informed import fishers, informed
from tests.merge.test_path import CONFIG, DEPTH, EMBED, HEAD, NORM, Tensors, assert_same, layer_of, tensors
from tests.seeing import plain_model, saved, seeing_model

WEIGHTS = {name: tensors(seed) for seed, name in enumerate("abcd")}
SEED = 5
DARE = Merge(method="dare_linear", base="c", sources=("a", "b"), params={"density": 0.5})
INNER = {
    "linear": Merge(method="linear", sources=("a", "b"), params={"weight": {"a": 0.25, "b": 0.5}}),
    "ties": Merge(method="ties", base="c", sources=("a", "b"), params={"density": 0.4, "scope": "model"}),
    "dare": DARE,
    "grouped": Merge(
        method="task_arithmetic",
        base="c",
        sources=("a", "b"),
        groups=(Group(modules=("mlp",), layers=(1, 2), params={"weight": {"a": -1.0, "b": 0.5}}),),
    ),
}
HALVES: dict[str, Any] = {"weight": {"inner": 0.5, "d": 0.25}}
OUTER = {
    "linear": Merge(method="linear", sources=("inner", "d"), params=HALVES),
    "after": Merge(method="linear", sources=("d", "inner"), params=HALVES),
    "ties": Merge(
        method="ties", base="c", sources=("d", "inner"), params={"density": 0.3, "scope": "model", **HALVES}
    ),
    "dare": Merge(method="dare_ties", base="c", sources=("inner", "d"), params={"density": 0.5}),
    "over": Merge(method="task_arithmetic", base="inner", sources=("d", "a")),
    "slerp": Merge(method="slerp", base="d", sources=("inner",), params={"t": 0.3}),
    "swap": layer_swap("inner", "d", layers=DEPTH, bottom=1, top=1),
}


def made(
    merges: Mapping[str, Merge], weights: Mapping[str, Mapping[str, Tensor]] = WEIGHTS, **rest: Any
) -> tuple[Tensors, dict[str, Any]]:
    refs = {name: ModelRef(source=name) for name in weights}
    recipe = Recipe(models=refs, merges=merges, **{"seed": SEED, **rest})
    return build_tensors(recipe, weights, dict.fromkeys(weights, CONFIG))


def in_two_steps(
    inner: Merge, outer: Merge, weights: Mapping[str, Mapping[str, Tensor]] = WEIGHTS, **rest: Any
) -> tuple[Tensors, dict[str, Any]]:
    """Return what merging with the finished inner merge gives; random draws take a merge by its place."""
    step = made({"m": inner}, weights, dtype="float32", **rest)[0]
    name = f"#{outer.sources.index('inner')}" if "inner" in outer.sources else "base"
    return made({"m": over(outer, name)}, {**weights, name: step}, **rest)


def over(outer: Merge, name: str) -> Merge:
    """Return `outer` of `name` in the place of `inner`."""

    def put(params: Mapping[str, Any]) -> dict[str, Any]:
        return {key: named(value) if isinstance(value, Mapping) else value for key, value in params.items()}

    def named(values: Mapping[str, Any]) -> dict[str, Any]:
        return {name if source == "inner" else source: each for source, each in values.items()}

    return replace(
        outer,
        base=name if outer.base == "inner" else outer.base,
        sources=tuple(name if each == "inner" else each for each in outer.sources),
        params=put(outer.params),
        groups=tuple(replace(group, params=put(group.params)) for group in outer.groups),
    )


def assert_equal(found: Mapping[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("outer", OUTER)
@pytest.mark.parametrize("inner", INNER)
def test_it_is_what_two_steps_give(inner: str, outer: str) -> None:
    found, config = made({"inner": INNER[inner], "outer": OUTER[outer]})
    expected, told = in_two_steps(INNER[inner], OUTER[outer])
    assert_equal(found, expected)
    assert config == told
    alone, _ = made({"m": INNER[inner]})
    assert not any(torch.equal(found[name], alone[name]) for name in (EMBED, HEAD))


def test_it_is_what_merge_tensors_gives_in_two_steps() -> None:
    params = {"density": 0.4, "scope": "model"}
    step = merge_tensors("ties", WEIGHTS["c"], [WEIGHTS["a"], WEIGHTS["b"]], params)
    expected = merge_tensors("linear", None, [step, WEIGHTS["d"]], {"weight": [0.5, 0.25]})
    assert_equal(made({"inner": INNER["ties"], "outer": OUTER["linear"]})[0], expected)


@pytest.mark.parametrize("inner", INNER)
def test_nothing_is_rounded_in_between(inner: str) -> None:
    halves = {
        name: {key: each.to(torch.bfloat16) for key, each in model.items()} for name, model in WEIGHTS.items()
    }
    found, _ = made({"inner": INNER[inner], "outer": OUTER["linear"]}, halves)
    whole = {name: {key: each.float() for key, each in model.items()} for name, model in halves.items()}
    expected = in_two_steps(INNER[inner], OUTER["linear"], whole)[0]
    assert_equal(found, {name: each.to(torch.bfloat16) for name, each in expected.items()})
    step = made({"m": INNER[inner]}, halves)[0]
    rounded = merge_tensors("linear", None, [step, halves["d"]], {"weight": [0.5, 0.25]})
    assert any(not torch.equal(found[name], each) for name, each in rounded.items())


@pytest.mark.parametrize("inner", INNER)
def test_a_merge_inside_is_the_same_model_as_alone(inner: str) -> None:
    """Masks, groups and what is looked at as a whole go by its own names, whatever is made of it."""
    only = Merge(method="linear", sources=("any",))
    assert_equal(made({"any": INNER[inner], "m": only})[0], made({"m": INNER[inner]})[0])
    assert not torch.equal(made({"m": DARE}, seed=6)[0][EMBED], made({"m": DARE})[0][EMBED])


@pytest.mark.parametrize("outer", ["dare", "swap"])
def test_names_of_merges_change_no_number(outer: str) -> None:
    def named(name: str) -> Recipe:
        merges = {name: DARE, f"o{name}": over(OUTER[outer], name)}
        return Recipe(models={each: ModelRef(source=each) for each in WEIGHTS}, merges=merges, seed=SEED)

    one, other = named("x"), named("y")
    assert one.key == other.key
    assert_equal(*(build_tensors(each, WEIGHTS, dict.fromkeys(WEIGHTS, CONFIG))[0] for each in (one, other)))


def test_merges_of_merges_of_merges() -> None:
    middle, top = OUTER["ties"], Merge(method="slerp", base="inner", sources=("middle",), params={"t": 0.4})
    found, _ = made({"top": top, "middle": middle, "inner": DARE})
    step = made({"m": DARE})[0]
    merged = in_two_steps(DARE, middle)[0]
    assert_equal(found, made({"m": replace(top, base="x", sources=("y",))}, {"x": step, "y": merged})[0])


def test_a_path_takes_layers_of_merges_of_merges() -> None:
    path = (Slot(model="outer", layer=2), Slot(model="inner", layer=0), Slot(model="outer", layer=2))
    found, _ = made({"inner": INNER["ties"], "outer": OUTER["swap"]}, path=path)
    whole = made({"inner": INNER["ties"], "outer": OUTER["swap"]})[0]
    step = made({"m": INNER["ties"]})[0]
    for number, (model, layer) in enumerate([(whole, 2), (step, 0), (whole, 2)]):
        assert_same(layer_of(found, number), layer_of(model, layer))
    for name in (EMBED, NORM, HEAD):
        assert torch.equal(found[name], whole[name])


TIED = {name: tensors(seed, tied=True) for seed, name in enumerate("abcd")}


@pytest.mark.parametrize("outer", ["linear", "over", "ties"])
def test_tied_models_merge_to_a_tied_one(outer: str) -> None:
    found, config = made({"inner": INNER["linear"], "outer": OUTER[outer]}, TIED)
    assert HEAD not in found
    assert config["tie_word_embeddings"] is True
    assert_equal(found, in_two_steps(INNER["linear"], OUTER[outer], TIED)[0])


def test_every_merge_is_untied_on_request() -> None:
    """The head has the parameters of `head` in either merge, as if each were the output."""
    groups = (Group(modules=("head",), params={"weight": {"a": 1.0, "b": 0.0}}),)
    inner = replace(INNER["linear"], groups=groups)
    found, config = made({"inner": inner, "outer": OUTER["linear"]}, TIED, untie=True)
    assert config["tie_word_embeddings"] is False
    assert_equal(found, in_two_steps(inner, OUTER["linear"], TIED, untie=True)[0])
    assert torch.equal(found[HEAD], merge_tensors("linear", None, [
        {HEAD: TIED["a"][EMBED]}, {HEAD: TIED["d"][EMBED]}], {"weight": [0.5, 0.25]})[HEAD])  # fmt: skip


@pytest.mark.parametrize("tied", ["ab", "d", "a", "abc"])
@pytest.mark.parametrize("outer", ["linear", "after", "ties", "over"])
def test_tied_and_untied_models_merge_to_an_untied_one(tied: str, outer: str) -> None:
    weights = {name: (TIED if name in tied else WEIGHTS)[name] for name in "abcd"}
    found, config = made({"inner": INNER["linear"], "outer": OUTER[outer]}, weights)
    assert config["tie_word_embeddings"] is False
    assert_equal(found, in_two_steps(INNER["linear"], OUTER[outer], weights)[0])
    assert HEAD in found


def test_what_a_source_lacks_is_that_of_the_merge_inside() -> None:
    fewer = {name: each for name, each in WEIGHTS["d"].items() if name != NORM}
    halves = {key: each.to(torch.bfloat16) for key, each in WEIGHTS["a"].items()}
    weights = {**WEIGHTS, "a": halves, "d": fewer}
    found = made({"inner": INNER["linear"], "outer": OUTER["linear"]}, weights)[0]
    step = made({"m": INNER["linear"]}, weights, dtype="float32")[0]
    assert torch.equal(found[NORM], step[NORM].to(torch.bfloat16))


def test_whole_numbers_are_copied_as_they_are() -> None:
    steps = {"model.layers.0.self_attn.steps": torch.tensor([2**40 + 1, 3])}
    weights = {name: each | steps for name, each in WEIGHTS.items()}
    found = made({"inner": INNER["linear"], "outer": OUTER["linear"]}, weights)[0]
    assert all(torch.equal(found[name], each) for name, each in steps.items())


def test_another_template_gives_the_output_its_form_alone() -> None:
    other = {"b": {key: each.to(torch.bfloat16) for key, each in WEIGHTS["b"].items()}}
    found, _ = made({"inner": INNER["ties"], "outer": OUTER["linear"]}, {**WEIGHTS, **other}, template="b")
    expected, _ = made({"inner": INNER["ties"], "outer": OUTER["linear"]}, {**WEIGHTS, **other})
    assert_equal(found, {name: each.to(torch.bfloat16) for name, each in expected.items()})


def test_a_merge_inside_is_made_once_for_each_tensor() -> None:
    class Counted(DictSource):
        def read(self, name: str, device: torch.device | None = None) -> Tensor:
            read.append(name)
            return super().read(name, device)

    read: list[str] = []
    sources = {name: DictSource(each) for name, each in WEIGHTS.items()} | {"a": Counted(WEIGHTS["a"])}
    refs = {name: ModelRef(source=name) for name in WEIGHTS}
    recipe = Recipe(models=refs, merges={"inner": INNER["linear"], "outer": OUTER["linear"]})
    checkpoints = {
        name: Checkpoint(path=Path(), config=CONFIG, specs=source.specs, files={})
        for name, source in sources.items()
    }
    plan = compile_plan(recipe, checkpoints)
    assert (plan.template, plan.models) == ("a", ("a", "d", "b"))
    execution = Execution(plan, Library(sources))
    for output in plan.outputs:
        execution.produce(output)
    assert read == list(WEIGHTS["a"])


def produced(plan: Plan, models: Mapping[str, Checkpoint]) -> Tensors:
    library = open_library(models, plan.models)
    execution = Execution(plan, library)
    found = {output.name: execution.produce(output).clone() for output in plan.outputs}
    library.close()
    return found


def planned(models: Mapping[str, Checkpoint], **merges: Merge) -> Plan:
    refs = {name: ModelRef(source=name) for name in models}
    return compile_plan(Recipe(models=refs, merges=merges, seed=SEED), models)


@pytest.mark.parametrize("outer", ["linear", "after", "over", "ties"])
@pytest.mark.parametrize("rows", [(6, 6, 8, 7), (8, 6, 6, 6), (7, 8, 6, 8)])
def test_models_padded_differently_are_matched(tmp_path: Path, outer: str, rows: tuple[int, ...]) -> None:
    models: dict[str, Checkpoint] = {}
    for seed, (name, count) in enumerate(zip("abcd", rows, strict=True)):
        save_model(tmp_path / name, word_level(["x", "y", "z"]), seed=seed, rows=count)
        models[name] = open_checkpoint(tmp_path / name)
    step = produced(planned(models, m=INNER["ties"]), models)
    shutil.copytree(tmp_path / "c", tmp_path / "inner")
    save_file(step, tmp_path / "inner" / "model.safetensors")
    by_hand = planned({**models, "inner": open_checkpoint(tmp_path / "inner")}, m=OUTER[outer])
    expected = produced(by_hand, {**models, "inner": open_checkpoint(tmp_path / "inner")})
    plan = planned(models, inner=INNER["ties"], outer=OUTER[outer])
    assert_equal(produced(plan, models), expected)
    assert plan.config == by_hand.config
    assert plan.tokenizer is not None
    assert plan.tokenizer.folder == models[plan.template].path


def test_an_adapter_is_exact_inside_and_beside(
    write_checkpoint: WriteCheckpoint, llama_tensors: Callable[..., Tensors], tmp_path: Path
) -> None:
    base = write_checkpoint("base", {name: 1000 * each for name, each in llama_tensors(0).items()})
    models = {"base": base, "one": adapter(tmp_path / "one", base)[0]}
    inner = Merge(method="task_arithmetic", base="base", sources=("one",), params={"weight": 1e6})
    alone = produced(planned(models, m=inner), models)
    inside = produced(planned(models, x=inner, m=Merge(method="linear", sources=("x",))), models)
    assert_equal(inside, alone)
    weight: dict[str, Any] = {"weight": {"x": 0.0, "one": 1e6}}
    beside = Merge(method="task_arithmetic", base="base", sources=("x", "one"), params=weight)
    assert_equal(produced(planned(models, x=inner, m=beside), models), alone)
    still = Merge(method="task_arithmetic", base="x", sources=("one",), params={"weight": 0.0})
    assert_equal(produced(planned(models, x=inner, m=still), models), alone)


def test_a_merge_by_statistics_may_stand_inside(
    write_checkpoint: WriteCheckpoint, llama_tensors: Callable[..., Tensors]
) -> None:
    weights = {name: llama_tensors(seed) for seed, name in enumerate("ab")}
    known = fishers(weights)
    models = informed({name: write_checkpoint(name, each) for name, each in weights.items()}, "fisher", known)
    inner, outer = Merge(method="fisher", sources=("a", "b")), Merge(method="linear", sources=("x", "b"))
    step = merge_tensors("fisher", None, list(weights.values()), {}, statistics=known)
    expected = merge_tensors("linear", None, [step, weights["b"]], {})
    assert_equal(produced(planned(models, x=inner, m=outer), models), expected)


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_nothing_is_measured_on_a_merge(method: str) -> None:
    with pytest.raises(
        RecipeError, match=rf"`{method}` merges by the .* `inner` has none; nothing is measured on a"
    ):
        made({"inner": INNER["linear"], "outer": Merge(method=method, sources=("inner",))})


def test_values_that_are_not_finite_are_refused_where_they_arise() -> None:
    huge = Merge(method="linear", sources=("a", "b"), params={"weight": 3e38, "normalize": False})
    none: dict[str, Any] = {"weight": {"inner": 0.5, "d": 0.5}}
    outer = Merge(method="linear", sources=("inner", "d"), params=none)
    with pytest.raises(MergeError, match=rf"`{EMBED}` of the merge `inner` has values that are not finite"):
        made({"inner": huge, "outer": outer})


def test_models_that_see_are_refused(tmp_path: Path) -> None:
    models = {
        "eyes": open_checkpoint(saved(seeing_model("llava"), tmp_path / "eyes")),
        "a": open_checkpoint(saved(plain_model("llava", seed=1), tmp_path / "a")),
    }
    inner = Merge(method="linear", sources=("eyes", "a"))
    with pytest.raises(
        RecipeError, match="merges of merges are made of plain language models, and `eyes` also"
    ):
        planned(models, x=inner, m=Merge(method="linear", sources=("x", "a")))
