"""Compressed task vectors in a file, and models restored from them, tensor by tensor.

A safetensors file (https://github.com/huggingface/safetensors#format) of packed bits, little-endian in C
order. Its metadata hold `format`, `version` and `tensors`: for each tensor, as JSON, its shape, the dtype
and the checksum of the base's tensor, how many entries are kept, their magnitude, the coding, and a checksum
of all that with the bits. `NAME:plus` and `NAME:minus` are bitmaps; or `NAME:gaps`, `NAME:rests` and
`NAME:signs` the unary and the binary part of the Golomb-Rice coded gaps, and which entries are negative.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import tempfile
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from evomerge.checkpoints.dtypes import DTYPES
from evomerge.checkpoints.headers import TensorSpec, read_header
from evomerge.checkpoints.tensors import TensorSource
from evomerge.checkpoints.ternary import CODINGS, Bytes, Ternary, decoded, encoded
from evomerge.errors import CheckpointError, unknown

_FORMAT, _VERSION = "evomerge-ternary", "1"
_PLANES: Mapping[str, tuple[str, ...]] = {"bitmap": ("plus", "minus"), "golomb": ("gaps", "rests", "signs")}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """What a file says of one compressed tensor."""

    shape: tuple[int, ...]
    dtype: str
    base: str
    kept: int
    scale: float
    coding: str
    checksum: str = ""


def write_ternary(
    path: Path, vectors: Iterable[tuple[str, Ternary]], base: TensorSource, *, coding: str = "golomb"
) -> None:
    """Write the compressed task vectors of a model over `base`, taking one at a time."""
    if coding not in CODINGS:
        raise CheckpointError(unknown("coding", coding, CODINGS))
    entries: dict[str, Entry] = {}
    spans: dict[str, dict[str, object]] = {}
    with tempfile.TemporaryFile(dir=path.parent) as payload:
        for name, vector in vectors:
            planes = encoded(vector, coding)
            entries[name] = _sealed(_entry(name, vector, base, coding), planes)
            for plane, content in planes.items():
                start = payload.tell()
                payload.write(content.data)
                spans[f"{name}:{plane}"] = {
                    "dtype": "U8", "shape": [len(content)], "data_offsets": [start, payload.tell()],
                }  # fmt: skip
        payload.seek(0)
        _write(path, _header(entries, spans), payload)


class TernaryFile:
    """A file of compressed task vectors; reads one at a time. `entries` are by tensor name."""

    def __init__(self, path: Path) -> None:
        self.path = path
        planes = read_header(path)
        self._stack = ExitStack()
        self._open: Any = self._stack.enter_context(safe_open(path, framework="numpy"))
        self.entries = self._entries(self._open.metadata() or {})
        for name, entry in self.entries.items():
            for plane in _PLANES[entry.coding]:
                if planes.get(f"{name}:{plane}", TensorSpec(dtype="", shape=())).dtype != "U8":
                    raise self._broken(f"it has no `{name}:{plane}`")

    def read(self, name: str) -> Ternary:
        """Return a tensor. Raises `CheckpointError` if it is not there or its bits were changed."""
        if name not in self.entries:
            raise CheckpointError(unknown(f"tensor in {self.path}", name, self.entries))
        entry = self.entries[name]
        planes = {plane: self._open.get_tensor(f"{name}:{plane}") for plane in _PLANES[entry.coding]}
        if _sealed(entry, planes) != entry:
            raise self._broken(f"the checksum of `{name}` does not fit its bits")
        try:
            return decoded(entry.shape, entry.scale, entry.kept, planes)
        except ValueError as error:
            raise self._broken(f"`{name}` cannot be read, {error}") from error

    def close(self) -> None:
        """Unmap the file."""
        self._stack.close()

    def check_base(self, name: str, tensor: Tensor) -> None:
        """Raise `CheckpointError` unless `tensor` is the one of the base that was subtracted."""
        if checksum(tensor) != self.entries[name].base:
            raise CheckpointError(
                f"{self.path} was made over another base: `{name}` differs; restore it over that one"
            )

    def dot(self, other: TernaryFile) -> float:
        """Return the inner product of two task vectors. Raises `CheckpointError` if the bases differ."""
        one, two = ({name: file.entries[name].base for name in file.entries} for file in (self, other))
        if one != two:
            raise CheckpointError(f"{self.path} and {other.path} are not of the same tensors of one base")
        return sum(self.read(name).dot(other.read(name)) for name in self.entries)

    def _entries(self, metadata: Mapping[str, str]) -> dict[str, Entry]:
        found = (metadata.get("format"), metadata.get("version"))
        if found != (_FORMAT, _VERSION):
            raise CheckpointError(
                f"{self.path} holds no compressed task vectors of version {_VERSION}: its format and version "
                f"are {found[0]} and {found[1]}"
            )
        try:
            return {name: _parsed(content) for name, content in json.loads(metadata["tensors"]).items()}
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise self._broken("its list of tensors cannot be read") from error

    def _broken(self, why: str) -> CheckpointError:
        return CheckpointError(f"{self.path} is damaged: {why}; make it again, or copy it again")


class RestoredSource:
    """The model that compressed task vectors stand for: base plus vector in float32, the rest as stored.

    `specs` tell the base's dtypes, which are those of a model made from this one.
    """

    def __init__(self, file: TernaryFile, base: TensorSource) -> None:
        for name in file.entries:
            if name not in base.specs:
                raise CheckpointError(f"{file.path} was made over another base: this one has no `{name}`")
        self._file, self._base = file, base
        self.specs = base.specs

    def read(self, name: str, device: torch.device | None = None) -> Tensor:
        """Return the tensor. Raises `CheckpointError` for another base or a damaged file."""
        tensor = self._base.read(name)
        if name not in self._file.entries:
            return tensor
        self._file.check_base(name, tensor)
        vector = self._file.read(name).tensor()
        return tensor.to(device=device, dtype=torch.float32) + vector.to(device=device)

    def close(self) -> None:
        """Let go of the files."""
        self._file.close()
        self._base.close()


def restore(path: Path, base: TensorSource) -> dict[str, Tensor]:
    """Return the state dict that the file stands for, in the base's dtypes."""
    with closing(TernaryFile(path)) as file:
        source = RestoredSource(file, base)
        return {name: source.read(name).to(DTYPES[spec.dtype]) for name, spec in base.specs.items()}


def checksum(tensor: Tensor) -> str:
    """Return `blake2b:` and 32 hex digits of a tensor's dtype, shape and bytes."""
    found = hashlib.blake2b(f"{tensor.dtype} {list(tensor.shape)} ".encode(), digest_size=16)
    found.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return f"blake2b:{found.hexdigest()}"


def _entry(name: str, vector: Ternary, base: TensorSource, coding: str) -> Entry:
    if name not in base.specs or base.specs[name].shape != vector.shape:
        found = list(base.specs[name].shape) if name in base.specs else "nothing"
        raise CheckpointError(f"`{name}` of the base is {found}, not {list(vector.shape)}")
    return Entry(
        shape=vector.shape,
        dtype=base.specs[name].dtype,
        base=checksum(base.read(name)),
        kept=vector.kept,
        scale=vector.scale,
        coding=coding,
    )


def _sealed(entry: Entry, planes: Mapping[str, Bytes]) -> Entry:
    """Return the entry with the checksum of all it says and of its bits."""
    content = {**asdict(entry), "checksum": ""}
    found = hashlib.blake2b(json.dumps(content, sort_keys=True).encode(), digest_size=16)
    for name in sorted(planes):
        found.update(np.ascontiguousarray(planes[name]).data)
    return Entry(**{**content, "checksum": f"blake2b:{found.hexdigest()}"})


def _parsed(content: Mapping[str, Any]) -> Entry:
    """Return an entry. Raises one of several errors for a list that is not as `write_ternary` writes it."""
    if content["coding"] not in CODINGS:
        raise ValueError(content["coding"])
    return Entry(
        shape=tuple(map(int, content["shape"])),
        dtype=str(content["dtype"]),
        base=str(content["base"]),
        kept=int(content["kept"]),
        scale=float(content["scale"]),
        coding=content["coding"],
        checksum=str(content["checksum"]),
    )


def _header(entries: Mapping[str, Entry], spans: Mapping[str, object]) -> bytes:
    tensors = json.dumps({name: asdict(entry) for name, entry in entries.items()})
    metadata = {"format": _FORMAT, "version": _VERSION, "tensors": tensors}
    text = json.dumps({"__metadata__": metadata, **spans}, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text


def _write(path: Path, header: bytes, payload: IO[bytes]) -> None:
    """Write a file beside `path`, then rename it."""
    staging = path.with_name(f".{path.name}.partial")
    with staging.open("wb") as file:
        file.write(header)
        shutil.copyfileobj(payload, file)
        file.flush()
        os.fsync(file.fileno())
    staging.replace(path)
