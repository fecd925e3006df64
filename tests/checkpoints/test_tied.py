"""What counts as tied: no head on disk, or a copy of the embedding where the config ties the two."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from evomerge.checkpoints.adapters import open_adapter
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.tied import head_name, read_structure
from tests.checkpoints.making import edit_config, save_model, word_level

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def save(folder: Path, *, tied: bool | None, head: str | None, family: str = "llama") -> None:
    """Write a model whose config says `tied` (None: nothing) and whose disk holds `head`."""
    save_model(folder, word_level(["a", "b"]), seed=0, tied=True, family=family)
    tensors = load_file(folder / "model.safetensors")
    if head is not None:
        change = 1.0 if head == "other" else 0.0
        tensors[HEAD] = tensors[EMBED] + change
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    edit_config(folder, tie_word_embeddings=tied)
    if tied is None:
        text = (folder / "config.json").read_text()
        (folder / "config.json").write_text(text.replace('"tie_word_embeddings": null, ', ""))


@pytest.mark.parametrize(
    ("tied", "head", "family", "expected"),
    [
        (True, None, "llama", True),
        (False, None, "llama", True),  # there is no other head
        (True, "copy", "llama", True),
        (True, "other", "llama", False),  # transformers does not tie these either
        (False, "copy", "llama", False),
        (False, "other", "llama", False),
        (None, "copy", "llama", False),  # by default untied
        (None, "copy", "gemma2", True),  # by default tied
    ],
)
def test_tied_is_what_transformers_ties(
    tied: bool | None, head: str | None, family: str, expected: bool, tmp_path: Path
) -> None:
    save(tmp_path / "m", tied=tied, head=head, family=family)
    assert read_structure(open_checkpoint(tmp_path / "m")).tied is expected
    if tied is not False or head is not None:  # else transformers would draw a head at random
        loaded: Any = AutoModelForCausalLM.from_pretrained(tmp_path / "m")
        together = loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight
        assert together is expected


def test_a_head_that_is_written_again_is_read_again(tmp_path: Path) -> None:
    save(tmp_path / "m", tied=True, head="copy")
    assert read_structure(open_checkpoint(tmp_path / "m")).tied
    tensors = load_file(tmp_path / "m" / "model.safetensors")
    tensors[HEAD] = torch.zeros_like(tensors[EMBED])
    save_file(tensors, tmp_path / "m" / "model.safetensors", metadata={"format": "pt"})
    assert not read_structure(open_checkpoint(tmp_path / "m")).tied


@pytest.mark.parametrize(
    ("family", "name"), [("llama", HEAD), ("gpt2", HEAD), ("gemma2", HEAD), ("nothing", None)]
)
def test_the_head_of_a_tied_model_has_a_name(family: str, name: str | None) -> None:
    assert head_name(family) == name


def test_a_head_that_an_adapter_saves_is_kept_where_the_base_holds_a_copy(tmp_path: Path) -> None:
    save(tmp_path / "base", tied=True, head="copy")
    base = open_checkpoint(tmp_path / "base")
    assert not read_structure(with_adapter(base, tmp_path / "head", HEAD)).tied
    inside = with_adapter(base, tmp_path / "inside", "model.norm.weight")
    assert read_structure(inside).tied
    assert HEAD not in inside.specs


def with_adapter(base: Checkpoint, folder: Path, name: str) -> Checkpoint:
    """Return `base` with an adapter that saves the tensor `name` whole."""
    folder.mkdir()
    config = {
        "peft_type": "LORA", "r": 1, "lora_alpha": 1, "modules_to_save": [name.removesuffix(".weight")]
    }  # fmt: skip
    (folder / "adapter_config.json").write_text(json.dumps(config))
    value = torch.ones(base.specs[name].shape)
    save_file({f"base_model.model.{name}": value}, folder / "adapter_model.safetensors")
    return open_adapter(folder, base)
