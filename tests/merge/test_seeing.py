"""Merging into the language tower of a model that sees: all else is copied, and scored is exported."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForImageTextToText

from evomerge.checkpoints.edits import Adapter
from evomerge.checkpoints.folder import Adaptation, Checkpoint, open_checkpoint
from evomerge.checkpoints.language import language_names
from evomerge.checkpoints.tensors import open_library
from evomerge.errors import RecipeError
from evomerge.merge.disk import write_weights
from evomerge.merge.execute import Execution
from evomerge.merge.memory import ResidentModel
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Merge, ModelRef, Recipe
from tests.seeing import FAMILIES, ROWS, plain_model, saved, seeing_model

Tensors = dict[str, Tensor]
Models = Mapping[str, Checkpoint]
NAMES = ("base", "seeing", "maths")
TIES = Merge(method="ties", base="base", sources=NAMES[1:], params={"density": 0.5, "scope": "model"})
LINEAR = Merge(method="linear", sources=NAMES[1:], params={"weight": {"seeing": 0.3, "maths": 0.7}})
every_family = pytest.mark.parametrize("family", FAMILIES)
TABLE, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"


def models_of(family: str, folder: Path, **changed: Any) -> dict[str, Checkpoint]:
    """Return a base, a model that sees and an expert; `changed` are keys of the LLMs' configs."""
    saved(plain_model(family, seed=1, **changed), folder / "base")
    saved(seeing_model(family, seed=2), folder / "seeing")
    saved(plain_model(family, seed=3, **changed), folder / "maths")
    return {name: open_checkpoint(folder / name) for name in NAMES}


def recipe_of(merge: Merge, models: Models, **rest: Any) -> Recipe:
    refs = {name: ModelRef(source=name) for name in models}
    return Recipe(models=refs, merges={"m": merge}, **rest)


def written(recipe: Recipe, models: Models, folder: Path) -> Path:
    plan = compile_plan(recipe, models)
    library = open_library(models, models)
    folder.mkdir()
    write_weights(Execution(plan, library), folder)
    library.close()
    (folder / "config.json").write_text(json.dumps(dict(plan.config)))
    return folder


def merged(merge: Merge, models: Models, folder: Path) -> Tensors:
    return load_file(written(recipe_of(merge, models), models, folder) / "model.safetensors")


def tensors(model: Checkpoint) -> Tensors:
    return load_file(model.path / "model.safetensors")


def assert_bits(one: Tensors, other: Tensors) -> None:
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor.view(torch.uint8), other[name].view(torch.uint8)), name


def logits(model: Any, **seen: Tensor) -> Tensor:
    with torch.no_grad():
        found: Tensor = model(**{"input_ids": torch.arange(3, 15)[None], **seen}).logits
    return found.clone()


@every_family
def test_scored_is_exported(family: str, tmp_path: Path) -> None:
    """Two recipes in turn: the second overwrites the first, in place."""
    models = models_of(family, tmp_path)
    library = open_library(models, models)
    resident = ResidentModel(library, device=torch.device("cpu"))
    lives, said = [], []
    for number, merge in enumerate((TIES, LINEAR)):
        recipe = recipe_of(merge, models)
        lives.append(resident.load(compile_plan(recipe, models)))
        stored = AutoModelForImageTextToText.from_pretrained(written(recipe, models, tmp_path / f"{number}"))
        said.append(logits(lives[-1]))
        assert torch.equal(said[-1], logits(stored))
        ours, theirs = lives[-1].state_dict(), stored.state_dict()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert lives[0] is lives[1]
    assert not torch.equal(*said)
    library.close()


def test_what_is_scored_with_an_image_is_exported(tmp_path: Path) -> None:
    models = models_of("llava", tmp_path)
    library = open_library(models, models)
    recipe = recipe_of(TIES, models)
    live = ResidentModel(library, device=torch.device("cpu")).load(compile_plan(recipe, models))
    stored = AutoModelForImageTextToText.from_pretrained(written(recipe, models, tmp_path / "out"))
    words = torch.tensor([[1, *[ROWS - 1] * 4, 7]])
    images = [torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) for seed in (0, 1)]
    seen = [logits(live, input_ids=words, pixel_values=image) for image in images]
    assert torch.equal(seen[0], logits(stored, input_ids=words, pixel_values=images[0]))
    assert not torch.equal(*seen)
    library.close()


@every_family
def test_the_tower_is_merged_as_the_llm_it_is_and_all_else_is_copied(family: str, tmp_path: Path) -> None:
    models = models_of(family, tmp_path)
    before = tensors(models["seeing"])
    found = merged(TIES, models, tmp_path / "out")
    names = language_names(found, models["seeing"].config)
    assert_bits(
        {name: found[name] for name, plain in names.items() if plain is None},
        {name: before[name] for name, plain in names.items() if plain is None},
    )
    twin = plain_model(family)
    twin.load_state_dict({plain: before[name] for name, plain in names.items() if plain}, strict=False)
    alone = models | {"seeing": open_checkpoint(saved(twin, tmp_path / "twin"))}
    expected = merged(TIES, alone, tmp_path / "alone")
    inside = {plain: name for name, plain in names.items() if plain}
    assert inside.keys() == expected.keys()
    for plain, name in inside.items():
        if plain not in ("model.embed_tokens.weight", "lm_head.weight"):  # rows of images are left out
            assert torch.equal(found[name], expected[plain]), name


@every_family
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_none_of_the_llm_is_the_model_that_sees(family: str, dtype: str, tmp_path: Path) -> None:
    models = models_of(family, tmp_path)
    if dtype == "bfloat16":
        for name, model in models.items():
            auto = seeing_model(family, seed=2) if name == "seeing" else plain_model(family, seed=3)
            saved(auto.to(torch.bfloat16), model.path)
        models = {name: open_checkpoint(model.path) for name, model in models.items()}
    before = tensors(models["seeing"])
    nothing = {"weight": {"seeing": 1.0, "maths": 0.0}}
    linear = Merge(method="linear", sources=("seeing", "maths"), params=nothing)
    added = Merge(method="task_arithmetic", base="seeing", sources=("maths",), params={"weight": 0.0})
    for name, merge in (("linear", linear), ("added", added)):
        assert_bits(merged(merge, models, tmp_path / name), before)
        stated = compile_plan(recipe_of(merge, models), models).config
        assert stated == models["seeing"].config


@pytest.mark.parametrize("rows", [ROWS - 4, ROWS, ROWS + 8])
def test_rows_that_are_not_shared_are_those_of_the_model_that_sees(rows: int, tmp_path: Path) -> None:
    models = models_of("llava", tmp_path, vocab_size=rows)
    before, maths, base = (tensors(models[name]) for name in ("seeing", "maths", "base"))
    added = Merge(method="task_arithmetic", base="base", sources=NAMES[1:], params={"weight": 0.5})
    found = merged(added, models, tmp_path / "out")
    shared = min(rows, ROWS - 1)  # the last is the image's
    for own, plain in ((TABLE, "model.embed_tokens.weight"), (HEAD, "lm_head.weight")):
        assert found[own].shape == before[own].shape
        assert torch.equal(found[own][shared:], before[own][shared:])
        start = base[plain][:shared]
        expected = start + 0.5 * (before[own][:shared] - start) + 0.5 * (maths[plain][:shared] - start)
        torch.testing.assert_close(found[own][:shared], expected)


@pytest.mark.parametrize("adapter", [None, "maths"])
def test_a_row_that_is_another_word_elsewhere_is_kept(adapter: str | None, tmp_path: Path) -> None:
    models = models_of("llava", tmp_path)
    words = {f"w{row}": row for row in range(ROWS)}
    renamed = {("<row>" if row == 5 else f"w{row}"): row for row in range(ROWS - 2)}
    for name, table in (("base", words), ("seeing", renamed), ("maths", words)):
        (models[name].path / "tokenizer.json").write_text(json.dumps({"model": {"vocab": table}}))
    if adapter is not None:  # it has no tokenizer of its own
        nothing = Adaptation(base=models[adapter], adapter=models[adapter], edits=Adapter(edits={}, added={}))
        models[adapter] = replace(models[adapter], path=tmp_path / "adapter", adaptation=nothing)
    before, found = tensors(models["seeing"])[TABLE], merged(LINEAR, models, tmp_path / "out")[TABLE]
    kept = [row for row in range(ROWS) if torch.equal(before[row], found[row])]
    assert kept == [5, ROWS - 2, ROWS - 1]


@pytest.mark.parametrize(
    ("merge", "asked", "template"),
    [
        (Merge(method="linear", sources=("maths", "seeing")), "", "seeing"),
        (Merge(method="linear", sources=("maths", "other", "seeing")), "", "other"),
        (Merge(method="linear", sources=("maths", "other", "seeing")), "seeing", "seeing"),
        (Merge(method="linear", sources=("maths",)), "", "maths"),
        (Merge(method="linear", sources=("maths",)), "seeing", "seeing"),
        (Merge(method="ties", base="base", sources=("maths", "seeing")), "", "seeing"),
        (Merge(method="ties", base="other", sources=("maths", "seeing")), "", "other"),
    ],
)
def test_the_form_is_that_of_a_model_that_sees(
    merge: Merge, asked: str, template: str, tmp_path: Path
) -> None:
    models = models_of("llava", tmp_path)
    models["other"] = open_checkpoint(saved(seeing_model("llava", seed=4), tmp_path / "other"))
    plan = compile_plan(recipe_of(merge, models, template=asked), models)
    assert plan.template == template
    assert [output.name for output in plan.outputs] == list(models[template].specs)


def test_a_template_that_does_not_see_is_refused_where_another_does(tmp_path: Path) -> None:
    models = models_of("llava", tmp_path)
    merge = Merge(method="linear", sources=("seeing", "maths"))
    with pytest.raises(RecipeError, match="`template: maths` is a plain language model and `seeing` also"):
        compile_plan(recipe_of(merge, models, template="maths"), models)


def test_a_head_of_its_own_unties_the_model_that_sees(tmp_path: Path) -> None:
    models = models_of("gemma3", tmp_path, tie_word_embeddings=False)
    recipe = recipe_of(LINEAR, models)
    folder = written(recipe, models, tmp_path / "out")
    found, config = load_file(folder / "model.safetensors"), json.loads((folder / "config.json").read_text())
    assert config["tie_word_embeddings"] is config["text_config"]["tie_word_embeddings"] is False
    before, head = tensors(models["seeing"])[TABLE], tensors(models["maths"])["lm_head.weight"]
    torch.testing.assert_close(found[HEAD][: ROWS - 3], (0.3 * before + 0.7 * head)[: ROWS - 3])
    stored = AutoModelForImageTextToText.from_pretrained(folder)
    assert torch.equal(stored.lm_head.weight, found[HEAD])
    library = open_library(models, models)
    live = ResidentModel(library, device=torch.device("cpu")).load(compile_plan(recipe, models))
    assert torch.equal(logits(live), logits(stored))
    library.close()


def test_a_dtype_is_that_of_all_towers(tmp_path: Path) -> None:
    models = models_of("llava", tmp_path)
    file = models["seeing"].path / "config.json"
    config = json.loads(file.read_text())
    config["text_config"]["torch_dtype"] = "float32"
    file.write_text(json.dumps(config))
    models["seeing"] = open_checkpoint(models["seeing"].path)
    folder = written(recipe_of(LINEAR, models, dtype="bfloat16"), models, tmp_path / "out")
    assert {value.dtype for value in load_file(folder / "model.safetensors").values()} == {torch.bfloat16}
    stated = json.loads((folder / "config.json").read_text())
    assert stated["dtype"] == stated["text_config"]["torch_dtype"] == "bfloat16"
    stored = AutoModelForImageTextToText.from_pretrained(folder)
    assert {value.dtype for value in stored.parameters()} == {torch.bfloat16}
