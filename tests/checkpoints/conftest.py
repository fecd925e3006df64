"""Checkpoint folders, written by hand: headers are only bytes."""

import json
import struct
from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from evomerge.checkpoints.headers import ITEM_BYTES

Shapes: TypeAlias = Mapping[str, tuple[int, ...]]
WriteModel: TypeAlias = Callable[..., Path]


@pytest.fixture
def write_file() -> Callable[..., Path]:
    """Return a function that writes a safetensors file of zeros with tensors of given shapes."""

    def write(path: Path, shapes: Shapes, *, dtype: str = "F32") -> Path:
        header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
        end = 0
        for name, shape in shapes.items():
            start, end = end, end + ITEM_BYTES[dtype] * prod(shape)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        text = json.dumps(header).encode()
        path.write_bytes(struct.pack("<Q", len(text)) + text + bytes(end))
        return path

    return write


@pytest.fixture
def write_model(tmp_path: Path, write_file: Callable[..., Path]) -> WriteModel:
    """Return a function that writes the folder of a model: config, weights, tokenizer."""

    def write(
        name: str,
        shapes: Shapes,
        *,
        config: Mapping[str, Any] | None = None,
        vocabulary: Mapping[str, int] | None = None,
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        (folder / "config.json").write_text(json.dumps({"model_type": "llama", **(config or {})}))
        tokenizer = {"model": {"vocab": vocabulary or {"a": 0, "b": 1}}}
        (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
        write_file(folder / "model.safetensors", shapes)
        return folder

    return write


@pytest.fixture
def llama_shapes() -> Callable[..., dict[str, tuple[int, ...]]]:
    """Return a function giving a Llama's tensor shapes for a number of layers."""

    def shapes(*, layers: int = 2, words: int = 4, head: bool = True) -> dict[str, tuple[int, ...]]:
        inside = {"input_layernorm": (3,), "self_attn.q_proj": (3, 3), "mlp.up_proj": (5, 3)}
        return {
            "model.embed_tokens.weight": (words, 3),
            **{
                f"model.layers.{layer}.{name}.weight": shape
                for layer in range(layers)
                for name, shape in inside.items()
            },
            "model.norm.weight": (3,),
            **({"lm_head.weight": (words, 3)} if head else {}),
        }

    return shapes
