"""Plans of methods that merge by statistics: which they read, and which requests are refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.checkpoints.edits import Adapter
from evomerge.checkpoints.folder import Adaptation, Checkpoint
from evomerge.checkpoints.headers import TensorSpec
from evomerge.checkpoints.measured import Measured, Origin, open_measured
from evomerge.checkpoints.models import open_models, places_of
from evomerge.checkpoints.tensors import open_library
from evomerge.errors import CheckpointError, RecipeError
from evomerge.merge.disk import write_file
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Apply, Operand, Plan
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Merge, ModelRef, Recipe
from evomerge.types import Statistic

Write = Callable[[str, Mapping[str, Tensor]], Checkpoint]
Tensors = dict[str, Tensor]
EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
Q, UP = "model.layers.0.self_attn.q_proj.weight", "model.layers.0.mlp.up_proj.weight"


def write_statistics(path: Path, kind: Statistic, tensors: Mapping[str, Tensor], **about: Any) -> Measured:
    origin = Origin(kind=kind, model="blake2b:00", samples=1, tokens=1, seed=0, **about)
    specs = {name: TensorSpec(dtype="F32", shape=tuple(value.shape)) for name, value in tensors.items()}
    write_file(path, specs, tensors.__getitem__, origin.metadata())
    return open_measured(path, kind)


@pytest.fixture
def tensors(llama_tensors: Callable[..., Tensors]) -> dict[str, Tensors]:
    return {name: llama_tensors(i) for i, name in enumerate(("a", "b"))}


@pytest.fixture
def models(write_checkpoint: Write, tensors: dict[str, Tensors]) -> dict[str, Checkpoint]:
    return {name: write_checkpoint(name, each) for name, each in tensors.items()}


def fishers(tensors: dict[str, Tensors]) -> list[Tensors]:
    return [
        {name: (i + 1.5 * value).square() for name, value in each.items()}
        for i, each in enumerate(tensors.values())
    ]


def informed(
    models: Mapping[str, Checkpoint], kind: Statistic, known: list[Tensors], **about: Any
) -> dict[str, Checkpoint]:
    return {
        name: replace(
            model, statistics={kind: write_statistics(model.path / f"{kind}.st", kind, each, **about)}
        )
        for (name, model), each in zip(models.items(), known, strict=True)
    }


def recipe(method: str) -> Recipe:
    refs = {name: ModelRef(source=name) for name in ("a", "b")}
    return Recipe(models=refs, merges={"m": Merge(method=method, sources=("a", "b"))})


def produced(plan: Plan, models: Mapping[str, Checkpoint]) -> Tensors:
    library = open_library(models, plan.models)
    execution = Execution(plan, library)
    found = {output.name: execution.produce(output) for output in plan.outputs}
    library.close()
    return found


def operation(plan: Plan, name: str) -> Apply:
    (found,) = (output.operation for output in plan.outputs if output.name == name)
    assert isinstance(found, Apply)
    return found


def test_a_plan_merges_by_files_as_merge_tensors_does_by_dicts(
    models: dict[str, Checkpoint], tensors: dict[str, Tensors]
) -> None:
    known = fishers(tensors)
    opened = informed(models, "fisher", known)
    plan = compile_plan(recipe("fisher"), opened)
    assert operation(plan, Q).statistics == tuple(Operand(model=f"{m}:fisher", tensor=Q) for m in "ab")
    assert plan.models == ("a", "b")
    expected = merge_tensors("fisher", None, list(tensors.values()), {}, statistics=known)
    found = produced(plan, opened)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_a_gram_matrix_is_found_under_the_weight_it_is_shared_with(
    models: dict[str, Checkpoint], tensors: dict[str, Tensors]
) -> None:
    grams = [{Q: value[Q].T @ value[Q]} for value in tensors.values()]
    opened = informed(models, "gram", grams, same_as={UP: Q})
    plan = compile_plan(recipe("regmean"), opened)
    assert operation(plan, UP).statistics == operation(plan, Q).statistics
    assert operation(plan, HEAD).statistics == (None, None)
    shared = [{Q: each[Q], UP: each[Q]} for each in grams]
    expected = merge_tensors("regmean", None, list(tensors.values()), {}, statistics=shared)
    found = produced(plan, opened)
    assert all(torch.equal(found[name], value) for name, value in expected.items())


def test_weights_stored_inputs_first_are_merged_so(
    models: dict[str, Checkpoint], tensors: dict[str, Tensors]
) -> None:
    grams = [{Q: value[Q] @ value[Q].T} for value in tensors.values()]  # (4, 4): the first of (4, 3)
    opened = informed(models, "gram", grams, inputs_first=(Q,))
    plan = compile_plan(recipe("regmean"), opened)
    assert operation(plan, Q).inputs_first
    assert not operation(plan, UP).inputs_first
    only = [{Q: value[Q]} for value in tensors.values()]
    expected = merge_tensors("regmean", None, only, {}, statistics=grams, inputs_first=True)
    assert torch.equal(produced(plan, opened)[Q], expected[Q])
    second = write_statistics(models["b"].path / "other.st", "gram", {Q: torch.eye(3)})
    mixed = {"a": opened["a"], "b": replace(opened["b"], statistics={"gram": second})}
    with pytest.raises(RecipeError, match=f"disagree on how `{Q}` is stored"):
        compile_plan(recipe("regmean"), mixed)


def test_the_head_of_a_tied_model_is_counted_once(
    write_checkpoint: Write, llama_tensors: Callable[..., Tensors]
) -> None:
    parts = {"a": llama_tensors(0), "b": llama_tensors(1, tied=True)}
    opened = {name: write_checkpoint(name, each) for name, each in parts.items()}
    plan = compile_plan(recipe("fisher"), informed(opened, "fisher", fishers(parts)))
    assert operation(plan, HEAD).operands[1] == Operand(model="b", tensor=EMBED)
    assert operation(plan, HEAD).statistics == (Operand(model="a:fisher", tensor=HEAD), None)
    assert operation(plan, EMBED).statistics[1] == Operand(model="b:fisher", tensor=EMBED)


def test_a_source_without_its_statistic_is_refused(
    models: dict[str, Checkpoint], tensors: dict[str, Tensors]
) -> None:
    opened = informed(models, "fisher", fishers(tensors))
    with pytest.raises(RecipeError, match=r"^`fisher` merges by the fisher of each source, and `b` has none"):
        compile_plan(recipe("fisher"), {**opened, "b": models["b"]})
    with pytest.raises(RecipeError, match=r"^`regmean` merges by the gram of each source, and `a` has none"):
        compile_plan(recipe("regmean"), opened)
    compile_plan(recipe("linear"), models)


def test_statistics_of_other_shapes_are_refused(
    models: dict[str, Checkpoint], tensors: dict[str, Tensors]
) -> None:
    known = fishers(tensors)
    known[1][Q] = torch.ones(3, 4)
    with pytest.raises(
        RecipeError, match=rf"does not fit `b`: its fisher of `{Q}` is \[3, 4\], not \[4, 3\]"
    ):
        compile_plan(recipe("fisher"), informed(models, "fisher", known))
    grams = [{Q: torch.eye(3)}, {Q: torch.eye(4)}]
    with pytest.raises(RecipeError, match=rf"its gram of `{Q}` is \[4, 4\], not \[3, 3\]"):
        compile_plan(recipe("regmean"), informed(models, "gram", grams))


def test_places_lead_back_to_models_and_statistics(
    models: dict[str, Checkpoint], tensors: dict[str, Tensors]
) -> None:
    opened = informed(models, "fisher", fishers(tensors))
    places = places_of({"a": opened["a"], "b": models["b"]})
    assert list(places) == ["a", "b", "a:fisher"]
    again = open_models(places)
    assert list(again) == ["a", "b"]
    assert again["a"].statistics == opened["a"].statistics
    assert again["b"].statistics == {}


def test_files_that_hold_something_else_are_refused(tmp_path: Path, models: dict[str, Checkpoint]) -> None:
    gram = write_statistics(tmp_path / "g.st", "gram", {Q: torch.eye(3)})
    with pytest.raises(CheckpointError, match=r"g\.st holds the gram of a model, not its fisher$"):
        open_measured(gram.path, "fisher")
    with pytest.raises(CheckpointError, match=r"is no statistics file of evomerge; make one with"):
        open_measured(models["a"].weight_files[0], "fisher")
    with pytest.raises(CheckpointError, match=r"no statistics file at .*none$"):
        open_measured(tmp_path / "none", "fisher")
    for content, message in (
        ('{"format": 2}', "have format 2, and this evomerge reads 1; measure again"),
        ("{", "is damaged; measure again"),
        ('{"format": 1, "kind": "gram"}', "is damaged; measure again"),
    ):
        write_file(tmp_path / "bad.st", {}, lambda _: torch.ones(1), {"evomerge.statistics": content})
        with pytest.raises(CheckpointError, match=message):
            open_measured(tmp_path / "bad.st", "gram")


def test_an_adapter_without_statistics_is_not_sent_to_be_measured(models: dict[str, Checkpoint]) -> None:
    nothing = Adaptation(base=models["a"], adapter=models["a"], edits=Adapter(edits={}, added={}))
    adapter = replace(models["a"], adaptation=nothing)
    with pytest.raises(RecipeError, match="`a` has none; nothing is measured on a LoRA adapter"):
        compile_plan(recipe("fisher"), {**models, "a": adapter})
