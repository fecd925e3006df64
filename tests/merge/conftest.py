"""Checkpoints small enough to merge in milliseconds."""

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeAlias

import pytest
import torch
import transformers
from safetensors.torch import save_file
from torch import Tensor

from evomerge.checkpoints.folder import Checkpoint, open_checkpoint

os.environ["HF_HUB_OFFLINE"] = "1"

WriteCheckpoint: TypeAlias = Callable[[str, Mapping[str, Tensor]], Checkpoint]


@pytest.fixture(scope="package", autouse=True)
def quiet_transformers() -> None:
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


@pytest.fixture
def write_checkpoint(tmp_path: Path) -> WriteCheckpoint:
    """Return a function that writes tensors as the checkpoint of a given name and opens it."""

    def write(name: str, tensors: Mapping[str, Tensor]) -> Checkpoint:
        folder = tmp_path / name
        folder.mkdir()
        save_file(dict(tensors), folder / "model.safetensors")
        config = {"model_type": "llama", "torch_dtype": "float32", "note": name}
        (folder / "config.json").write_text(json.dumps(config))
        return open_checkpoint(folder)

    return write


@pytest.fixture
def llama_tensors() -> Callable[..., dict[str, Tensor]]:
    """Return a function giving the tensors of a Llama-shaped model of two layers."""

    def tensors(seed: int, *, tied: bool = False) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        names = [
            "model.embed_tokens.weight",
            *(
                f"model.layers.{layer}.{inside}.weight"
                for layer in (0, 1)
                for inside in ("input_layernorm", "self_attn.q_proj", "mlp.up_proj")
            ),
            "model.norm.weight",
            *(() if tied else ("lm_head.weight",)),
        ]
        return {name: torch.randn(4, 3, generator=generator) for name in names}

    return tensors
