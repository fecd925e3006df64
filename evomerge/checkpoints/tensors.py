"""Tensors of a source model, read lazily: memory-mapped files, or a plain dict.

Mapped pages are shared by all workers of a machine; nothing is copied until it is computed with.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.headers import TensorSpec
from evomerge.checkpoints.measured import Measured, statistics_name
from evomerge.errors import CheckpointError, MergeError

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""torch's dtype for a safetensors code."""

CODES = {dtype: code for code, dtype in DTYPES.items()}


class TensorSource(Protocol):
    """Named tensors of one model."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Shape and dtype of each."""

    def read(self, name: str) -> Tensor:
        """Return the tensor as stored; do not write to it."""


class FileSource:
    """The tensors of a checkpoint or of a statistics file, memory-mapped."""

    def __init__(self, checkpoint: Checkpoint | Measured) -> None:
        self.specs = checkpoint.specs
        self._files = checkpoint.files
        self._stack = ExitStack()
        self._open: dict[Any, Any] = {}
        for path in checkpoint.weight_files:
            try:
                handle = safe_open(path, framework="pt")
            except SafetensorError as error:
                raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
            self._open[path] = self._stack.enter_context(handle)

    def read(self, name: str) -> Tensor:
        tensor: Tensor = self._open[self._files[name]].get_tensor(name)
        return tensor

    def close(self) -> None:
        """Unmap the files."""
        self._stack.close()


class DictSource:
    """Tensors already in memory."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.specs = {name: _spec(name, tensor) for name, tensor in tensors.items()}

    def read(self, name: str) -> Tensor:
        return self._tensors[name].detach()


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    if tensor.dtype not in CODES:
        raise MergeError(f"`{name}` is {tensor.dtype}, which safetensors cannot hold")
    return TensorSpec(dtype=CODES[tensor.dtype], shape=tuple(tensor.shape))


class Library:
    """The source models of a recipe, by name; hands out tensors ready to compute with."""

    def __init__(self, sources: Mapping[str, TensorSource]) -> None:
        self._sources = sources
        self._finite: set[tuple[str, str]] = set()

    def raw(self, model: str, tensor: str) -> Tensor:
        """Return the tensor as stored."""
        return self._sources[model].read(tensor)

    def float32(self, model: str, tensor: str, device: torch.device | None = None) -> Tensor:
        """Return the tensor in float32. Raises `MergeError` if a value is NaN or infinite."""
        value = self.raw(model, tensor).to(device=device, dtype=torch.float32)
        if (model, tensor) not in self._finite:
            if not bool(value.isfinite().all()):
                raise MergeError(f"`{tensor}` of model `{model}` holds NaN or infinite values")
            self._finite.add((model, tensor))
        return value

    def close(self) -> None:
        """Close the sources that hold files."""
        for source in self._sources.values():
            if isinstance(source, FileSource):
                source.close()


def open_library(checkpoints: Mapping[str, Checkpoint], names: Iterable[str]) -> Library:
    """Return the named checkpoints' tensors and statistics, memory-mapped."""
    sources: dict[str, TensorSource] = {}
    for name in names:
        sources[name] = FileSource(checkpoints[name])
        for kind, measured in checkpoints[name].statistics.items():
            sources[statistics_name(name, kind)] = FileSource(measured)
    return Library(sources)
