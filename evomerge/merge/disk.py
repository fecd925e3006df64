"""The disk executor: a plan streamed into safetensors shards, one tensor in memory at a time.

Layout of a file: https://github.com/huggingface/safetensors#format. The library has no streaming writer,
but dtypes and shapes are known beforehand, so the header can be written first.
"""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import torch
from torch import Tensor

from evomerge.checkpoints.headers import ITEM_BYTES, TensorSpec
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Output

SHARD_BYTES = 5_000_000_000

_MOST_BEHIND = 1 << 28
"""Bytes that the disk may be behind."""

_METADATA: Mapping[str, str] = MappingProxyType({"format": "pt"})


def write_weights(execution: Execution, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> None:
    """Write the plan's tensors into `folder` as safetensors, sharded and indexed as transformers does."""
    shards = _shards(execution.plan.outputs, shard_bytes)
    if len(shards) == 1:
        _write_shard(execution, shards[0], folder / "model.safetensors")
        return
    index: dict[str, str] = {}
    for number, outputs in enumerate(shards, start=1):
        name = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        _write_shard(execution, outputs, folder / name)
        index |= dict.fromkeys((output.name for output in outputs), name)
    content = {"metadata": {"total_size": execution.plan.nbytes}, "weight_map": index}
    _write(folder / "model.safetensors.index.json", json.dumps(content, indent=2).encode())


def _shards(outputs: Sequence[Output], limit: int) -> list[list[Output]]:
    """Return the outputs in files of at most `limit` bytes (a larger tensor has a file of its own)."""
    shards: list[list[Output]] = []
    room = 0
    for output in outputs:
        if not shards or output.spec.nbytes > room:
            shards.append([])
            room = limit
        shards[-1].append(output)
        room -= output.spec.nbytes
    return shards


def _write_shard(execution: Execution, outputs: Sequence[Output], path: Path) -> None:
    """Write outputs as one file, wide dtypes first, as alignment wants them."""
    ordered = sorted(outputs, key=lambda output: (-ITEM_BYTES[output.spec.dtype], output.name))
    by_name = {output.name: output for output in ordered}
    specs = {name: output.spec for name, output in by_name.items()}
    write_file(path, specs, lambda name: execution.produce(by_name[name]))


def write_file(
    path: Path,
    specs: Mapping[str, TensorSpec],
    make: Callable[[str], Tensor],
    metadata: Mapping[str, str] = _METADATA,
) -> None:
    """Write a safetensors file of the tensors that `make` gives, in the order of `specs`.

    One is made while the one before it is written.
    """
    with path.open("wb") as file, ThreadPoolExecutor(max_workers=1) as writer:
        appending = _Appending(file)
        written = writer.submit(file.write, _header(specs, metadata))
        for name in specs:
            tensor = make(name).cpu().contiguous()
            written.result()
            written = writer.submit(appending, tensor)
        written.result()
        file.flush()
        os.fsync(file.fileno())


class _Appending:
    """Writes tensors at a file's end, and waits for the disk now and then: else it would idle, then lag."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._behind = 0

    def __call__(self, tensor: Tensor) -> int:
        wrote = self._file.write(tensor.reshape(-1).view(torch.uint8).numpy().data)
        self._behind += wrote
        if self._behind >= _MOST_BEHIND:
            self._file.flush()
            os.fdatasync(self._file.fileno())
            self._behind = 0
        return wrote


def _header(specs: Mapping[str, TensorSpec], metadata: Mapping[str, str]) -> bytes:
    """Return the header: its length, then JSON padded to eight bytes."""
    content: dict[str, object] = {"__metadata__": dict(metadata)}
    offset = 0
    for name, spec in specs.items():
        end = offset + spec.nbytes
        content[name] = {"dtype": spec.dtype, "shape": list(spec.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(content, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
