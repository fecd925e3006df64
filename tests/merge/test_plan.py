"""Planning: which operation makes which tensor, and which recipes are refused."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.tensors import open_library
from evomerge.errors import PluginError, RecipeError
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Apply, Copy, Operand, Output, Plan
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Filtered, Group, Merge, ModelRef, Recipe
from evomerge.recipe.merge import Setting

Write = Callable[[str, Mapping[str, Tensor]], Checkpoint]
Models = dict[str, Checkpoint]
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def models(write_checkpoint: Write, llama_tensors: Callable[..., dict[str, Tensor]]) -> Models:
    return {name: write_checkpoint(name, llama_tensors(i)) for i, name in enumerate(("base", "a", "b"))}


def recipe(
    *,
    method: str = "task_arithmetic",
    base: str | None = "base",
    sources: tuple[str, ...] = ("a", "b"),
    dtype: str | None = None,
    **rest: Any,
) -> Recipe:
    merge = Merge(method=method, base=base, sources=sources, **rest)
    names = dict.fromkeys((*sources, *((base,) if base else ())))
    refs = {name: ModelRef(source=name) for name in names}
    return Recipe(models=refs, merges={"m": merge}, dtype=dtype, seed=7)


def output(plan: Plan, name: str) -> Output:
    return next(output for output in plan.outputs if output.name == name)


def method_at(plan: Plan, name: str) -> Any:
    operation = output(plan, name).operation
    assert isinstance(operation, Apply)
    return operation.method


def test_every_template_tensor_is_made_in_its_order_shape_and_dtype(models: Models) -> None:
    plan = compile_plan(recipe(), models)
    assert [output.name for output in plan.outputs] == list(models["base"].specs)
    assert {output.name: output.spec for output in plan.outputs} == models["base"].specs
    assert (plan.template, plan.seed, plan.models) == ("base", 7, ("base", "a", "b"))
    assert plan.nbytes == sum(spec.nbytes for spec in models["base"].specs.values())


def test_a_method_without_a_base_takes_the_first_source_as_template(models: Models) -> None:
    plan = compile_plan(recipe(method="linear", base=None, sources=("b", "a")), models)
    assert (plan.template, plan.config["note"], plan.models) == ("b", "b", ("b", "a"))
    operation = output(plan, EMBED).operation
    assert isinstance(operation, Apply)
    assert operation.base is None


def test_the_first_group_that_covers_a_tensor_wins(models: Models) -> None:
    groups = (
        Group(modules=("attn",), layers=(1, 1), params={"weight": 0.1}),
        Group(modules=("attn", "mlp"), params={"weight": 0.2}),
        Group(modules=("attn", "mlp", "embed"), params={"weight": 0.3}),
    )
    plan = compile_plan(recipe(params={"weight": 0.9, "lambda": 2.0}, groups=groups), models)
    weights = {output.name: method_at(plan, output.name).weight[0] for output in plan.outputs}
    assert weights == {
        EMBED: 0.3,
        "model.layers.0.input_layernorm.weight": 0.9,
        "model.layers.0.self_attn.q_proj.weight": 0.2,
        "model.layers.0.mlp.up_proj.weight": 0.2,
        "model.layers.1.input_layernorm.weight": 0.9,
        "model.layers.1.self_attn.q_proj.weight": 0.1,
        "model.layers.1.mlp.up_proj.weight": 0.2,
        "model.norm.weight": 0.9,
        HEAD: 0.9,
    }
    assert {method_at(plan, output.name).lambda_ for output in plan.outputs} == {2.0}


def test_values_by_source_follow_the_sources_order(models: Models) -> None:
    plan = compile_plan(recipe(params={"weight": {"b": 0.2, "a": 0.1}}), models)
    assert method_at(plan, EMBED).weight == (0.1, 0.2)


@pytest.mark.parametrize(
    ("weight", "message"),
    [
        ({"a": 1.0}, "`weight` has no value for the source `b`"),
        ({"a": 1.0, "b": 1.0, "bb": 1.0}, "`weight`: no source named `bb`. Did you mean `b`"),
    ],
)
def test_values_by_source_name_each_source_once(
    weight: dict[str, float], message: str, models: Models
) -> None:
    with pytest.raises(RecipeError, match=message):
        compile_plan(recipe(params={"weight": weight}), models)


def test_a_tensor_missing_in_a_source_is_copied_and_reported(
    models: Models,
    write_checkpoint: Write,
    llama_tensors: Callable[..., dict[str, Tensor]],
    caplog: pytest.LogCaptureFixture,
) -> None:
    fewer = llama_tensors(3)
    del fewer["model.norm.weight"]
    with caplog.at_level(logging.WARNING):
        plan = compile_plan(recipe(), models | {"b": write_checkpoint("fewer", fewer)})
    home = Operand(model="base", tensor="model.norm.weight")
    assert output(plan, "model.norm.weight").operation == Copy(operand=home)
    assert sum(isinstance(each.operation, Copy) for each in plan.outputs) == 1
    assert "`model.norm.weight` is not in every source" in caplog.text


def test_what_is_not_float_is_copied_in_its_dtype(
    write_checkpoint: Write, llama_tensors: Callable[..., dict[str, Tensor]]
) -> None:
    steps = {"model.layers.0.attn.steps": torch.arange(3)}
    models = {name: write_checkpoint(name, llama_tensors(0) | steps) for name in ("base", "a", "b")}
    made = output(compile_plan(recipe(dtype="bfloat16"), models), "model.layers.0.attn.steps")
    assert isinstance(made.operation, Copy)
    assert made.spec.dtype == "I64"


def test_the_dtype_of_the_recipe_is_that_of_tensors_and_config(models: Models) -> None:
    plan = compile_plan(recipe(dtype="bfloat16"), models)
    assert {output.spec.dtype for output in plan.outputs} == {"BF16"}
    assert plan.config["dtype"] == "bfloat16"
    assert "torch_dtype" not in plan.config


def test_an_unknown_dtype_is_refused(models: Models) -> None:
    with pytest.raises(RecipeError, match=r"`bfloat`\. Did you mean `bfloat16`"):
        compile_plan(recipe(dtype="bfloat"), models)


def test_a_method_that_needs_a_base_is_refused_without_one(models: Models) -> None:
    with pytest.raises(RecipeError, match="`ties` needs a base model; add `base: NAME`"):
        compile_plan(recipe(method="ties", base=None), models)


def test_a_method_of_one_source_is_refused_two(models: Models) -> None:
    with pytest.raises(
        RecipeError, match=r"`slerp` takes exactly 1 source\(s\) besides the base, found 2 \(a, b\)"
    ):
        compile_plan(recipe(method="slerp"), models)


def test_an_unknown_method_is_refused(models: Models) -> None:
    with pytest.raises(PluginError, match=r"no merge method named `tie`\. Did you mean `ties`"):
        compile_plan(recipe(method="tie"), models)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"wieght": 1.0}, "no parameter named `wieght`. Did you mean `weight`"),
        ({"weight": "much"}, "`weight` must be a number, found 'much'"),
        ({"normalize": "no"}, "`normalize` is one of true, false, found 'no'"),
    ],
)
def test_parameters_the_method_rejects_are_the_recipes_fault(
    params: dict[str, Any], message: str, models: Models
) -> None:
    with pytest.raises(RecipeError, match=message):
        compile_plan(recipe(params=params), models)


def test_one_density_per_model_is_needed_to_trim_over_the_whole_model(models: Models) -> None:
    groups = (Group(modules=("attn",), params={"density": 0.5}),)
    two: dict[str, Any] = {"method": "ties", "params": {"density": 0.2, "scope": "model"}, "groups": groups}
    with pytest.raises(RecipeError, match="`ties` looks at the whole model here, so it needs the same"):
        compile_plan(recipe(**two), models)
    per_tensor = two | {"params": {"density": 0.2, "scope": "tensor"}}
    assert compile_plan(recipe(**per_tensor), models).surveyed == ()


@pytest.mark.parametrize("where", ["params", "groups"])
def test_a_filter_that_no_tensor_fits_is_refused(where: str, models: Models) -> None:
    def asked(word: str) -> Recipe:
        params: dict[str, Setting] = {
            "weight": {"a": (Filtered(filter=word, value=0.5), Filtered(value=1.0)), "b": 1.0}
        }
        group = Group(modules=("attn",), layers=(0, 0), params=params)
        return recipe(params=params) if where == "params" else recipe(groups=(group,))

    assert compile_plan(asked("self_attn"), models).outputs
    with pytest.raises(RecipeError, match="`filter: slf_attn`: no tensor of the merged model has that"):
        compile_plan(asked("slf_attn"), models)


def test_trimming_over_the_whole_model_looks_at_every_tensor_it_covers(models: Models) -> None:
    plan = compile_plan(recipe(method="ties", params={"density": 0.2, "scope": "model"}), models)
    assert plan.surveyed == plan.outputs


@pytest.mark.parametrize("tied", [{"base"}, {"a"}, {"a", "b"}, {"base", "b"}])
def test_tied_and_untied_models_merge_to_an_untied_one(
    tied: set[str], write_checkpoint: Write, llama_tensors: Callable[..., dict[str, Tensor]]
) -> None:
    tensors = {name: llama_tensors(i, tied=name in tied) for i, name in enumerate(("base", "a", "b"))}
    models = {name: write_checkpoint(name, each) for name, each in tensors.items()}
    plan = compile_plan(recipe(params={"weight": {"a": 0.5, "b": 0.25}}), models)
    assert plan.config["tie_word_embeddings"] is False
    operation = output(plan, HEAD).operation
    assert isinstance(operation, Apply)
    at = [EMBED if name in tied else HEAD for name in ("base", "a", "b")]
    assert operation.base == Operand(model="base", tensor=at[0])
    assert operation.operands == (Operand(model="a", tensor=at[1]), Operand(model="b", tensor=at[2]))
    library = open_library(models, models)
    base, a, b = (tensors[name][where] for name, where in zip(("base", "a", "b"), at, strict=True))
    found = Execution(plan, library).produce(output(plan, HEAD))
    torch.testing.assert_close(found, base + 0.5 * (a - base) + 0.25 * (b - base))
    library.close()


def test_tied_models_merge_to_a_tied_one(
    write_checkpoint: Write, llama_tensors: Callable[..., dict[str, Tensor]]
) -> None:
    models = {name: write_checkpoint(name, llama_tensors(0, tied=True)) for name in ("base", "a", "b")}
    plan = compile_plan(recipe(), models)
    assert plan.config["tie_word_embeddings"] is True
    assert HEAD not in [output.name for output in plan.outputs]


def test_anchors_and_filters_are_settled_for_each_tensor(models: Models) -> None:
    weights = {"a": (0.0, 1.0), "b": (Filtered(filter="mlp", value=0.25),)}
    plan = compile_plan(recipe(params={"weight": weights}), models)
    found = {name: method_at(plan, name).weight for name in models["base"].specs}
    assert found[EMBED] == (0.0, 1.0)  # b: no filter matches, so the method's default
    assert found["model.layers.0.mlp.up_proj.weight"] == (0.0, 0.25)
    assert found["model.layers.1.mlp.up_proj.weight"] == (1.0, 0.25)
    assert found["model.layers.1.self_attn.q_proj.weight"] == (1.0, 1.0)
