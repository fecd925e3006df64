"""Exports of merges of merges: what was scored, as stock checkpoints."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from evomerge.checkpoints.locate import ZOO
from evomerge.checkpoints.tensors import open_library
from evomerge.errors import RequestError
from evomerge.merge.memory import ResidentModel
from evomerge.merge.planning import compile_plan
from evomerge.merge.sources import open_sources
from evomerge.publish.public import export
from evomerge.recipe import from_yaml
from tests.checkpoints.peft_adapters import load, save_adapter
from tests.cli.conftest import save_llama

SWAPPED = """\
models: {{base: {0}/base, math: {0}/math, lang: {0}/lang}}
merges:
  merged: {{method: dare_ties, base: base, sources: [math, lang], params: {{density: 0.6}}}}
  swapped:
    method: linear
    sources: [merged, lang]
    groups:
    - {{modules: [attn, mlp, rest], layers: [0, 0], weight: {{merged: 0.0, lang: 1.0}}}}
    - {{modules: [attn, mlp, rest, embed, head], weight: {{merged: 1.0, lang: 0.0}}}}
dtype: {1}
"""


@pytest.fixture
def models(models: Path) -> Path:
    save_llama(models / "base", seed=9)
    return models


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_checkpoint_is_the_model_that_was_scored(models: Path, dtype: str) -> None:
    recipe = from_yaml(SWAPPED.format(models, dtype))
    target = export(recipe, models.parent / "out")
    sources = open_sources(recipe, {})
    resident = ResidentModel(open_library(sources, sources), device=torch.device("cpu"))
    live = resident.load(compile_plan(recipe, sources)).state_dict()
    stored: Any = transformers.AutoModelForCausalLM.from_pretrained(target)
    for name, value in stored.state_dict().items():
        assert torch.equal(value, live[name]), name
    lang: Any = transformers.AutoModelForCausalLM.from_pretrained(
        models / "lang", dtype=getattr(torch, dtype)
    )
    for layer, same in ((0, True), (1, False)):
        name = f"model.layers.{layer}.mlp.up_proj.weight"
        assert torch.equal(stored.state_dict()[name], lang.state_dict()[name]) is same


def test_the_exported_recipe_exports_the_same_bytes(models: Path) -> None:
    target = export(from_yaml(SWAPPED.format(models, "float32")), models.parent / "out")
    written = from_yaml((target / "recipe.yaml").read_text())
    assert list(written.models) == ["base", "math", "lang"]
    places = {name: models / name for name in written.models}
    again = export(written, models.parent / "again", paths=places)
    for name in ("model.safetensors", "recipe.yaml", "tokenizer.json", "config.json"):
        assert (again / name).read_bytes() == (target / name).read_bytes()
    card = (target / "README.md").read_text()
    assert "by `dare_ties` and `linear` from:" in card
    assert all(f"**{name}** ({role})" in card for name, role in [("base", "base"), ("math", "source")])


def test_models_behind_a_merge_must_fit(models: Path) -> None:
    asked = SWAPPED.format(models, "float32")
    with pytest.raises(RequestError, match="`math` cannot be merged with `base`: the vocabularies differ"):
        export(from_yaml(asked.replace("/math,", "/permuted,")), models.parent / "out")


def test_nothing_is_measured_on_a_merge(models: Path) -> None:
    asked = SWAPPED.format(models, "float32").replace("method: linear", "method: fisher")
    with pytest.raises(RequestError, match="`merged` has none; nothing is measured on a merge, so export it"):
        export(from_yaml(asked), models.parent / "out")
    assert not (models.parent / "out").exists()


def test_an_adapter_may_stand_in_both_merges(tmp_path: Path) -> None:
    """It changes the base of the one that has a base."""
    save_adapter(load(ZOO / "models" / "base"), tmp_path / "math", seed=1, target_modules=["q_proj"])
    text = (
        f"models: {{base: 'zoo:base', math: {tmp_path / 'math'}, lang: 'zoo:lang'}}\nmerges:\n"
        "  merged: {method: ties, base: base, sources: [math, lang]}\n"
        "  top: {method: linear, sources: [merged, math]}\n"
    )
    target = export(from_yaml(text), tmp_path / "out")
    assert from_yaml((target / "recipe.yaml").read_text()).models["math"].adapts == "base"
    over = text.replace("sources: [math, lang]", "sources: [lang]").replace(
        "linear, sources: [merged, math]", "ties, base: merged, sources: [math]"
    )
    with pytest.raises(RequestError, match="`math` is a LoRA adapter, and there is no base to put it on"):
        export(from_yaml(over), tmp_path / "other")
