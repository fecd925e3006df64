"""Tensors of a source model, read lazily: memory-mapped files, or a plain dict.

Mapped pages are shared by all workers of a machine; nothing is copied until it is computed with.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from evomerge.checkpoints.dtypes import all_finite
from evomerge.checkpoints.edits import Adapter, Edit, LowRank, Magnitude, Replace, Rows, Shift
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.headers import TensorSpec
from evomerge.checkpoints.measured import Measured, statistics_name
from evomerge.checkpoints.pickled import PICKLE, PickledFile, spec_of
from evomerge.errors import CheckpointError, MergeError


class TensorSource(Protocol):
    """Named tensors of one model."""

    @property
    def specs(self) -> Mapping[str, TensorSpec]:
        """Shape and dtype of each."""

    def read(self, name: str, device: torch.device | None = None) -> Tensor:
        """Return the tensor as stored, or computed on `device` where it is not; do not write to it."""

    def close(self) -> None:
        """Let go of files."""


class FileSource:
    """The tensors of a checkpoint or of a statistics file, memory-mapped."""

    def __init__(self, checkpoint: Checkpoint | Measured) -> None:
        self.specs = checkpoint.specs
        self._files = checkpoint.files
        self._stack = ExitStack()
        self._open: dict[Any, Any] = {}
        self._mapped: dict[str, Tensor] = {}
        for path in checkpoint.weight_files:
            if path.suffix == PICKLE:
                self._open[path] = PickledFile(path)
                continue
            try:
                handle = safe_open(path, framework="pt")
            except SafetensorError as error:
                raise CheckpointError(f"{path} is not a whole safetensors file: {error}") from error
            self._open[path] = self._stack.enter_context(handle)

    def read(self, name: str, device: torch.device | None = None) -> Tensor:
        del device  # nothing to compute
        if (mapped := self._mapped.get(name)) is not None:
            return mapped
        tensor: Tensor = self._open[self._files[name]].get_tensor(name)
        self._mapped[name] = tensor  # which is no more than its place; to make one again takes longer
        return tensor

    def close(self) -> None:
        self._mapped.clear()
        self._stack.close()
        self._open.clear()


class DictSource:
    """Tensors already in memory."""

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        self._tensors = tensors
        self.specs = {name: _spec(name, tensor) for name, tensor in tensors.items()}

    def read(self, name: str, device: torch.device | None = None) -> Tensor:
        del device  # nothing to compute
        return self._tensors[name].detach()

    def close(self) -> None:
        pass  # no files


class AdaptedSource:
    """The tensors of `base` with an adapter's edits: the edited ones in float32, the others as stored.

    `specs` tell the base's dtypes, which are those of a model made from this one.
    """

    def __init__(self, base: TensorSource, parts: TensorSource, adapter: Adapter) -> None:
        self.base = base
        self._parts = parts
        self._adapter = adapter
        self.specs: Mapping[str, TensorSpec] = {
            **base.specs,
            **{name: base.specs[origin] for name, origin in adapter.added.items()},
        }

    def read(self, name: str, device: torch.device | None = None) -> Tensor:
        edits = self._adapter.edits.get(name, ())
        return self._changed(name, edits, device)[0] if edits else self.base.read(self._origin(name))

    def delta(self, name: str, device: torch.device | None = None) -> Tensor:
        """Return the tensor minus the base's, in float32: zeros where the adapter does nothing.

        A sum is the products themselves, not what adding them to the base and taking it away again leaves.
        """
        return self._changed(name, self._adapter.edits.get(name, ()), device)[1]

    def close(self) -> None:
        self.base.close()
        self._parts.close()

    def _origin(self, name: str) -> str:
        return self._adapter.added.get(name, name)

    def _part(self, key: str, device: torch.device | None) -> Tensor:
        return self._parts.read(key).to(device=device, dtype=torch.float32)

    def _changed(
        self, name: str, edits: tuple[Edit, ...], device: torch.device | None
    ) -> tuple[Tensor, Tensor]:
        """Return the tensor after the edits, and the difference they make."""
        start = self.base.read(self._origin(name)).to(device=device, dtype=torch.float32)
        value, delta = start, torch.zeros_like(start)
        for edit in edits:
            if isinstance(edit, LowRank | Shift):
                term = self._term(edit, device)
                value, delta = value + term, delta + term
            else:
                value = self._replaced(edit, value, device)
                delta = value - start
        return value, delta

    def _term(self, edit: LowRank | Shift, device: torch.device | None) -> Tensor:
        """Return what the edit adds."""
        if isinstance(edit, Shift):
            return edit.scale * self._part(edit.value, device)
        product = self._part(edit.b, device) @ self._part(edit.a, device)
        return edit.scale * (product.T if edit.transposed else product)

    def _replaced(
        self, edit: Replace | Rows | Magnitude, value: Tensor, device: torch.device | None
    ) -> Tensor:
        """Return what the edit makes of `value`; DoRA leaves rows of zeros as they are."""
        given = self._part(edit.value, device)
        if isinstance(edit, Replace):
            return given
        if isinstance(edit, Rows):
            return value.index_copy(0, torch.tensor(edit.rows, device=value.device), given)
        norm = torch.linalg.vector_norm(value, dim=edit.dim, keepdim=True, dtype=torch.float64)
        factor: Tensor = given.unsqueeze(edit.dim) / norm.where(norm > 0, 1.0)
        return value * factor.to(torch.float32)


def _spec(name: str, tensor: Tensor) -> TensorSpec:
    if (spec := spec_of(tensor)) is None:
        raise MergeError(f"`{name}` is {tensor.dtype}, which safetensors cannot hold")
    return spec


class Library:
    """The source models of a recipe, by name; hands out tensors ready to compute with.

    Values are looked at before they are merged, but those of models that are `known_finite`.
    """

    def __init__(self, sources: Mapping[str, TensorSource], *, known_finite: Collection[str] = ()) -> None:
        self._sources = sources
        self._known_finite = known_finite
        self._finite: set[tuple[str, str]] = set()
        self._home: torch.device | None = None
        self._room = 0
        self._kept: dict[tuple[str, str], Tensor] = {}

    def keep_on(self, device: torch.device, room: int) -> None:
        """Keep tensors on a device that was asked for them, as they are stored, up to `room` bytes.

        Those that come first stay; the others go there anew each time.
        """
        self._home, self._room = device, room

    def placed(self, model: str, tensor: str, device: torch.device | None = None) -> Tensor:
        """Return the tensor as stored, or computed, on `device`; do not write to it."""
        kept = self._kept.get((model, tensor))
        if kept is not None and device == self._home:
            return kept
        value = self._sources[model].read(tensor, device).to(device=device)
        if device is not None and device == self._home and value.nbytes <= self._room:
            self._room -= value.nbytes
            self._kept[model, tensor] = value
        return value

    def raw(self, model: str, tensor: str) -> Tensor:
        """Return the tensor as stored."""
        return self._sources[model].read(tensor)

    def stored(self, model: str, tensor: str, device: torch.device | None = None) -> Tensor:
        """Return the tensor as stored, on `device`. Raises `MergeError` if a value is NaN or infinite."""
        return self._checked(self.placed(model, tensor, device), model, tensor)

    def float32(self, model: str, tensor: str, device: torch.device | None = None) -> Tensor:
        """Return the tensor in float32. Raises `MergeError` if a value is NaN or infinite."""
        return self._checked(self.placed(model, tensor, device).to(dtype=torch.float32), model, tensor)

    def adapter_delta(
        self, model: str, base: str, tensor: str, device: torch.device | None = None
    ) -> Tensor | None:
        """Return by how much `model` changes the tensor of `base`, in float32, if it is an adapter of that.

        None if it is anything else. Raises `MergeError` if a value is NaN or infinite.
        """
        source = self._sources[model]
        if not isinstance(source, AdaptedSource) or source.base is not self._sources[base]:
            return None
        return self._checked(source.delta(tensor, device), model, tensor)

    def close(self) -> None:
        """Let go of the sources' files, and of what is kept of them."""
        self._kept.clear()
        for source in self._sources.values():
            source.close()

    def _checked(self, value: Tensor, model: str, tensor: str) -> Tensor:
        """Return `value`, which is looked at the first time. Raises `MergeError` if it is not finite."""
        if model not in self._known_finite and (model, tensor) not in self._finite:
            _check_finite(value, model, tensor)
            self._finite.add((model, tensor))
        return value

    def rows(self, model: str, tensor: str, index: Tensor, device: torch.device | None = None) -> Tensor:
        """Return the rows `index` of the tensor in float32. Raises `MergeError` for NaN or infinity."""
        value = self.raw(model, tensor).index_select(0, index).to(device=device, dtype=torch.float32)
        _check_finite(value, model, tensor)
        return value


def _check_finite(value: Tensor, model: str, tensor: str) -> None:
    if not all_finite(value):
        raise MergeError(
            f"`{tensor}` of model `{model}` holds NaN or infinite values; "
            "fetch or train the model again, or leave it out"
        )


def open_library(
    checkpoints: Mapping[str, Checkpoint], names: Iterable[str], *, known_finite: Collection[str] = ()
) -> Library:
    """Return the named checkpoints' tensors and statistics, mapped; an adapter shares its base's files."""
    whole: dict[Path, FileSource] = {}

    def source(checkpoint: Checkpoint) -> TensorSource:
        if (made := checkpoint.adaptation) is not None:
            return AdaptedSource(source(made.base), FileSource(made.adapter), made.edits)
        if checkpoint.path not in whole:
            whole[checkpoint.path] = FileSource(checkpoint)
        return whole[checkpoint.path]

    sources: dict[str, TensorSource] = {}
    for name in names:
        sources[name] = source(checkpoints[name])
        for kind, measured in checkpoints[name].statistics.items():
            sources[statistics_name(name, kind)] = FileSource(measured)
    return Library(sources, known_finite=known_finite)
