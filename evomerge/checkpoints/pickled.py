"""Weights in pickle files, for people who ask for them (`--allow-pickle`).

`torch.load(weights_only=True)` builds tensors and plain containers and refuses every other object, so a file
cannot name code to run: https://docs.pytorch.org/docs/stable/notes/serialization.html#weights-only-security.
That protects from what pickle is made for. It does not protect from a mistake in torch's own unpickler,
which reads the file's instructions (such mistakes were found: CVE-2025-32434), nor from weights that mean
harm. Take pickles only from people you would take code from.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evomerge.checkpoints.dtypes import CODES
from evomerge.checkpoints.headers import TensorSpec
from evomerge.errors import CheckpointError

PICKLE = ".bin"
"""How the names of pickled weights end."""


class PickledFile:
    """The tensors of one pickle, memory-mapped. Raises `CheckpointError` if it holds anything else."""

    def __init__(self, path: Path) -> None:
        self._tensors = _load(path)
        self.specs = {name: _spec(path, name, tensor) for name, tensor in self._tensors.items()}

    def get_tensor(self, name: str) -> Tensor:
        """Return the tensor as stored; do not write to it."""
        return self._tensors[name]

    def same(self, one: str, other: str) -> bool:
        """Return whether two names stand for the same stored tensor, as those of a tied model do."""
        a, b = self._tensors[one], self._tensors[other]
        return a.data_ptr() == b.data_ptr() and a.shape == b.shape and a.stride() == b.stride()


def spec_of(tensor: Tensor) -> TensorSpec | None:
    """Return the tensor's dtype and shape, or None if safetensors has no word for its dtype."""
    code = CODES.get(tensor.dtype)
    return TensorSpec(dtype=code, shape=tuple(tensor.shape)) if code else None


def _load(path: Path) -> Mapping[str, Tensor]:
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError) as error:
        reason = str(error).strip().partition(". ")[0].partition("\n")[0]
        raise CheckpointError(
            f"{path} cannot be read as weights alone ({reason}); save it again with `save_pretrained`"
        ) from error
    if not isinstance(content, Mapping) or not content:
        raise CheckpointError(f"{path} is no table of tensors; save it again with `save_pretrained`")
    for name, tensor in content.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path} holds `{name}`, which is no tensor; save the weights alone")
    return {name: tensor.detach() for name, tensor in content.items()}


def _spec(path: Path, name: str, tensor: Tensor) -> TensorSpec:
    if tensor.layout is not torch.strided or (spec := spec_of(tensor)) is None:
        raise CheckpointError(f"{path}: `{name}` is {tensor.dtype} ({tensor.layout}), which cannot be merged")
    return spec
