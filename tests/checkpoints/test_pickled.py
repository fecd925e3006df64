"""Pickled weights: read on request, as tensors and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evomerge.checkpoints.adapters import open_adapter
from evomerge.checkpoints.digest import digest
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.tensors import open_library
from evomerge.errors import CheckpointError
from tests.checkpoints.peft_adapters import Words, merged_by_peft, save_adapter

SHAPES = {
    "model.embed_tokens.weight": (4, 3),
    "model.layers.0.self_attn.q_proj.weight": (3, 3),
    "model.norm.weight": (3,),
}


@pytest.fixture
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {name: torch.randn(shape).to(torch.bfloat16) for name, shape in SHAPES.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return tmp_path


def shard(folder: Path, files: dict[str, dict[str, Any]]) -> None:
    for name, content in files.items():
        torch.save(content, folder / name)
    index = {tensor: name for name, content in files.items() for tensor in content}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))


def check_read(folder: Path, tensors: dict[str, Tensor]) -> None:
    checkpoint = open_checkpoint(folder, allow_pickle=True)
    assert {name: spec.dtype for name, spec in checkpoint.specs.items()} == dict.fromkeys(tensors, "BF16")
    library = open_library({"it": checkpoint}, ["it"])
    for name, tensor in tensors.items():
        assert torch.equal(library.raw("it", name), tensor)
    library.close()


def test_one_file_and_shards_give_what_was_saved(folder: Path, tensors: dict[str, Tensor]) -> None:
    torch.save(tensors, folder / "pytorch_model.bin")
    check_read(folder, tensors)
    (folder / "pytorch_model.bin").unlink()
    first, *rest = tensors
    shard(folder, {"a.bin": {first: tensors[first]}, "b.bin": {name: tensors[name] for name in rest}})
    check_read(folder, tensors)
    assert digest(open_checkpoint(folder, allow_pickle=True)).startswith("blake2b:")


def test_without_the_word_pickles_are_refused_and_the_word_is_named(
    folder: Path, tensors: dict[str, Tensor]
) -> None:
    torch.save(tensors, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=r"pickled weights \(pytorch_model\.bin\).*`--allow-pickle`"):
        open_checkpoint(folder)
    (folder / "pytorch_model.bin").rename(folder / "consolidated.00.pth")
    with pytest.raises(CheckpointError, match="under names that transformers does not read"):
        open_checkpoint(folder, allow_pickle=True)


@pytest.mark.parametrize("place", ["../outside.bin", "sub/x.bin", "..", "ABSOLUTE"])
def test_a_shard_outside_the_folder_is_refused(place: str, folder: Path, tensors: dict[str, Tensor]) -> None:
    torch.save(tensors, folder.parent / "outside.bin")
    named = str(folder.parent / "outside.bin") if place == "ABSOLUTE" else place
    content = {"weight_map": dict.fromkeys(tensors, named)}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match="which leaves the folder"):
        open_checkpoint(folder, allow_pickle=True)


class _Trap:
    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return Path.touch, (Path("sprung"),)  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (_Trap(), "cannot be read as weights alone"),
        ({"model.norm.weight": _Trap()}, "cannot be read as weights alone"),
        ({"model": {"norm.weight": torch.zeros(3)}}, "holds `model`, which is no tensor"),
        ([torch.zeros(3)], "is no table of tensors"),
        ({}, "is no table of tensors"),
        ({"model.norm.weight": torch.zeros(3).to_sparse()}, "sparse"),
        ({"model.norm.weight": torch.zeros(3, dtype=torch.complex64)}, "complex64"),
    ],
)
def test_what_is_no_table_of_weights_is_refused_and_not_run(
    content: Any, says: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    torch.save(content, folder / "pytorch_model.bin")
    with pytest.raises(CheckpointError, match=says):
        open_checkpoint(folder, allow_pickle=True)
    assert not (folder / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"not a pickle at all", b"PK\x03\x04torn"])
def test_a_broken_file_is_refused(content: bytes, folder: Path) -> None:
    (folder / "pytorch_model.bin").write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be read as weights alone"):
        open_checkpoint(folder, allow_pickle=True)


def test_a_file_in_the_format_before_zip_is_refused(folder: Path, tensors: dict[str, Tensor]) -> None:
    torch.save(tensors, folder / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="save it again with `save_pretrained`"):
        open_checkpoint(folder, allow_pickle=True)


def test_the_head_of_a_tied_model_counts_once(folder: Path, tensors: dict[str, Tensor]) -> None:
    embedding = tensors["model.embed_tokens.weight"]
    torch.save({**tensors, "lm_head.weight": embedding}, folder / "pytorch_model.bin")
    assert "lm_head.weight" not in open_checkpoint(folder, allow_pickle=True).specs
    torch.save({**tensors, "lm_head.weight": embedding.clone()}, folder / "pytorch_model.bin")
    assert "lm_head.weight" in open_checkpoint(folder, allow_pickle=True).specs


def test_an_adapter_may_be_pickled_too(folder: Path) -> None:
    model = Words()
    names = {"emb": "model.embed_tokens", "fc": "model.layers.0.self_attn.q_proj", "head": "lm_head"}

    def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
        found = {}
        for name, tensor in tensors.items():
            for short, full in names.items():
                name = name.replace(f"{short}.", f"{full}.") if f"{short}." in name else name
            found[name] = tensor
        return found

    adapter = save_adapter(model, folder / "adapter", target_modules=["fc"])
    from safetensors.torch import load_file

    torch.save(renamed(load_file(adapter / "adapter_model.safetensors")), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    torch.save(renamed(model.state_dict()), folder / "pytorch_model.bin")
    base = open_checkpoint(folder, allow_pickle=True)
    with pytest.raises(CheckpointError, match=r"pickled weights \(adapter_model\.bin\).*`--allow-pickle`"):
        open_adapter(adapter, base)
    adapted = open_adapter(adapter, base, allow_pickle=True)
    library = open_library({"it": adapted}, ["it"])
    save_adapter(model, folder / "again", target_modules=["fc"])
    want = renamed(merged_by_peft(model, folder / "again"))
    for name, tensor in want.items():
        torch.testing.assert_close(library.float32("it", name), tensor, rtol=1e-5, atol=1e-6)
