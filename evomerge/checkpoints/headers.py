"""Read what a safetensors file says of itself, without loading torch or any weight.

Format: https://github.com/huggingface/safetensors#format. A header that lies about its file is
refused here, before anything trusts its offsets.
"""

from __future__ import annotations

import json
import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.errors import CheckpointError

ITEM_BYTES = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2, "F8_E4M3": 1, "F8_E5M2": 1,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U64": 8, "U32": 4, "U16": 2, "U8": 1, "BOOL": 1,
}  # fmt: skip
FLOATS = ("F64", "F32", "F16", "BF16")
QUANTISED = ("F8_E4M3", "F8_E5M2")
_LARGEST_HEADER = 100_000_000  # the library's own limit
_LARGEST = 1 << 63  # it counts in 64 bits


@dataclass(frozen=True, kw_only=True)
class TensorSpec:
    """A tensor's dtype (safetensors code) and shape."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def is_float(self) -> bool:
        """Whether the tensor can be merged; the rest is copied."""
        return self.dtype in FLOATS

    @property
    def nbytes(self) -> int:
        """Bytes the tensor takes in a file."""
        return ITEM_BYTES[self.dtype] * math.prod(self.shape)


def read_header(path: Path) -> dict[str, TensorSpec]:
    """Return the tensors of a safetensors file by name. Raises `CheckpointError` if it is broken."""
    size = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        length = struct.unpack("<Q", head)[0] if len(head) == 8 else 0
        if not 2 <= length <= min(size - 8, _LARGEST_HEADER):
            raise _broken(path, f"its header claims {length} of {size} bytes")
        raw = file.read(length)
    try:
        header = json.loads(raw.decode("utf-8"), object_pairs_hook=_table)
        _check_metadata(header.get("__metadata__", {}))
        entries = [(name, entry) for name, entry in header.items() if name != "__metadata__"]
        specs = {name: _spec(path, name, entry) for name, entry in entries}
        spans = sorted(_span(name, entry) for name, entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise _broken(path, "its header is not that of a safetensors file") from error
    _check_spans(path, spans, specs, size - 8 - length)
    return specs


def read_metadata(path: Path) -> dict[str, str]:
    """Return what the header of a safetensors file, known to be whole, says besides its tensors."""
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        found = json.loads(file.read(length)).get("__metadata__")
    return dict(found) if found else {}


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return a JSON object. Raises `ValueError` for a key that stands twice, or is no text."""
    table = dict(pairs)
    if len(table) < len(pairs):
        raise ValueError("a key stands twice")
    for key in table:
        key.encode("utf-8")
    return table


def _check_metadata(found: Any) -> None:
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("the metadata is no table of words")


def _spec(path: Path, name: str, entry: dict[str, Any]) -> TensorSpec:
    spec = TensorSpec(dtype=entry["dtype"], shape=_counts(entry["shape"]))
    if spec.dtype not in ITEM_BYTES:
        raise _broken(path, f"tensor `{name}` has the unknown dtype {spec.dtype}")
    return spec


def _span(name: str, entry: dict[str, Any]) -> tuple[int, int, str]:
    start, stop = _counts(entry["data_offsets"])
    return start, stop, name


def _counts(values: Any) -> tuple[int, ...]:
    """Return a JSON list of whole numbers from 0. Raises `ValueError` for anything else."""
    if not isinstance(values, list) or any(
        type(value) is not int or not 0 <= value < _LARGEST for value in values
    ):
        raise ValueError("not a list of counts")
    return tuple(values)


def _check_spans(
    path: Path, spans: list[tuple[int, int, str]], specs: dict[str, TensorSpec], size: int
) -> None:
    """Hold the tensors' places to the file: gapless, of the right length, nothing beyond the end."""
    end = 0
    for start, stop, name in spans:
        if start != end or stop - start != specs[name].nbytes:
            raise _broken(path, f"tensor `{name}` does not lie where its shape and dtype put it")
        end = stop
    if end != size:
        raise _broken(path, f"its tensors take {end} bytes, but {size} follow the header")


def _broken(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is not a whole safetensors file: {why}; download or copy it again")
