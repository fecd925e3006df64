"""A source is held to its own config, without reading a weight."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

from evomerge.checkpoints.folder import open_checkpoint
from evomerge.errors import CheckpointError
from evomerge.merge.loadable import check_loadable, check_model
from tests.checkpoints.making import edit_config, save_model, word_level
from tests.merge.families import FAMILIES, save_random_model
from tests.seeing import seeing_expert


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_model(tmp_path / "model", word_level(["a", "b"]), seed=0)


@pytest.mark.parametrize("name", FAMILIES)
def test_what_transformers_saves_is_loadable(name: str, tmp_path: Path) -> None:
    save_random_model(name, "bfloat16", 0, tmp_path)
    check_model(name, open_checkpoint(tmp_path))


def test_a_model_that_sees_is_loadable(tmp_path: Path) -> None:
    check_model("sees", open_checkpoint(seeing_expert(tmp_path)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (
            {"hidden_size": 16},
            r"`x` does not fit its own config\.json: by that `.*` would be \[.*16.*\], and",
        ),
        ({"hidden_size": 10**9}, r"does not fit its own config\.json"),
        ({"vocab_size": 10**12}, r"does not fit its own config\.json"),
        ({"intermediate_size": 13}, r"`.*down_proj.*` would be \[8, 13\], and .* have \[8, 12\]"),
        ({"num_key_value_heads": 2}, r"`.*k_proj.*` would be \[8, 8\], and .* have \[4, 8\]"),
        ({"num_hidden_layers": 10**9}, "has 2 layers, but its config.json says 1000000000"),
        ({"attention_bias": True}, r"`x` is incomplete: a `llama` of its config.json needs `.*_proj\.bias`"),
        (
            {"hidden_act": "nonsense"},
            "cannot make a model of the config.json of `x` in .*KeyError: 'nonsense'",
        ),
        ({"num_attention_heads": 0}, "cannot make a model of the config.json of `x`"),
        ({"hidden_size": "8"}, "cannot make a model of the config.json of `x`"),
        ({"pad_token_id": 10**9}, "cannot make a model of the config.json of `x`"),
        ({"model_type": "lama"}, "has no language model of type `lama`, did you mean `llama`?"),
    ],
)
def test_a_config_that_lies_is_refused(changed: dict[str, Any], message: str, folder: Path) -> None:
    check_loadable("x", open_checkpoint(folder))
    edit_config(folder, **changed)
    with pytest.raises(CheckpointError, match=message):
        check_loadable("x", open_checkpoint(folder))


def test_a_tensor_of_another_shape_is_refused(folder: Path) -> None:
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    tensors["model.layers.1.mlp.up_proj.weight"] = torch.zeros(4, 8)
    save_file(tensors, weights, metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match=r"up_proj.weight` would be \[12, 8\], and .* have \[4, 8\]"):
        check_loadable("x", open_checkpoint(folder))


def test_a_tokenizer_that_cannot_be_loaded_is_refused(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "pre_tokenizer": {"type": "Nonsense"}}))
    with pytest.raises(CheckpointError, match=r"the tokenizer of `x` in .* cannot be loaded \(Exception: "):
        check_loadable("x", open_checkpoint(folder))
    file.unlink()
    with pytest.raises(CheckpointError, match="`x` has no tokenizer in"):
        check_loadable("x", open_checkpoint(folder))


def test_nothing_is_said_and_transformers_talks_as_before(
    folder: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    edit_config(folder, intermediate_size=13)
    before = transformers.logging.get_verbosity()
    with pytest.raises(CheckpointError):
        check_loadable("x", open_checkpoint(folder))
    assert capfd.readouterr() == ("", "")
    assert transformers.logging.get_verbosity() == before
