"""What is said of source models side by side."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.locate import locate
from evomerge.checkpoints.models import open_models
from evomerge.checkpoints.traits import Trait, form_of, traits


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Path]:
    """The base and the maths expert of the zoo, to be changed."""
    places = {name: tmp_path / name for name in ("base", "math")}
    for name, place in places.items():
        shutil.copytree(locate(f"zoo:{name}"), place)
    return places


def edit(file: Path, **changed: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))


def opened(models: dict[str, Path]) -> dict[str, Checkpoint]:
    return {name: open_checkpoint(path) for name, path in models.items()}


def found(models: dict[str, Path], what: str, **options: bool) -> Trait:
    (trait,) = (each for each in traits(opened(models), form="base", **options) if each.what == what)
    return trait


def test_models_alike_differ_in_nothing(models: dict[str, Path]) -> None:
    seen = traits(opened(models), form="base")
    assert [each.what for each in seen if each.differs] == []
    assert [each.note for each in seen if each.note] == []
    said = {each.what: each.values["math"] for each in seen}
    assert said["architecture"] == "llama"
    assert said["layers"] == "6"
    assert said["parameters"] == "1.25 million"
    assert said["stored as"] == "bfloat16"
    assert said["special tokens"] == "bos <s>, eos </s>, pad <pad>, unk <unk>"
    assert said["chat template"] == "none"
    assert said["licence"] == "apache-2.0"


def test_a_template_that_only_an_expert_has_is_not_the_merges(models: dict[str, Path]) -> None:
    (models["math"] / "chat_template.jinja").write_text("{{ messages }}")
    trait = found(models, "chat template")
    assert trait.values["base"] == "none"
    assert trait.values["math"].startswith("14 characters")
    assert trait.note.startswith(
        "`math` has a chat template and `base` has none, so the merged model has none;"
    )
    assert "merge.template" in trait.note


def test_templates_in_either_place_are_told_apart(models: dict[str, Path]) -> None:
    (models["math"] / "chat_template.jinja").write_text("{{ messages }}")
    edit(models["base"] / "tokenizer_config.json", chat_template="{{ messages }}")
    assert not found(models, "chat template").differs
    edit(models["base"] / "tokenizer_config.json", chat_template="{{ message }}!")
    assert "is not that of `base`" in found(models, "chat template").note


def test_other_special_tokens_are_named(models: dict[str, Path]) -> None:
    edit(models["math"] / "tokenizer_config.json", eos_token={"content": "<|im_end|>"})
    trait = found(models, "special tokens")
    assert trait.differs
    assert "`math`: bos <s>, eos <|im_end|>" in trait.note
    assert "the merged model has those of `base`" in trait.note
    assert found(models, "special tokens", by_token=True).note == ""


def test_positions_are_said_in_words_of_any_version(models: dict[str, Path]) -> None:
    edit(models["base"] / "config.json", rope_theta=1e6, rope_parameters=None)
    scaled = {"rope_type": "linear", "factor": 4.0}
    edit(models["math"] / "config.json", rope_theta=1e4, rope_parameters=None, rope_scaling=scaled)
    assert found(models, "positions").values == {
        "base": "theta 1e+06, 128 tokens",
        "math": "theta 10000, linear × 4, 128 tokens",
    }


def test_an_adapter_is_told_from_a_whole_model() -> None:
    places = {"base": locate("zoo:base"), "math": locate("zoo:math-lora")}
    seen = {each.what: each for each in traits(open_models(places, {"math": "base"}), form="base")}
    assert seen["stored as"].values == {"base": "bfloat16", "math": "an adapter of 86 tensors"}
    assert not seen["tokens"].differs


def test_the_form_comes_from_the_template_then_the_base_then_the_first(models: dict[str, Path]) -> None:
    both = opened(models)
    assert form_of(both, template="math", base="base") == "math"
    assert form_of(both, template=None, base="math") == "math"
    assert form_of(both, template=None, base=None) == "base"
