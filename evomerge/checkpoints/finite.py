"""Whether sources hold numbers: a NaN would reach every merge of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from torch import Tensor

from evomerge.checkpoints import seen
from evomerge.checkpoints.dtypes import all_finite
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.tensors import FileSource
from evomerge.errors import CheckpointError

_ENTRIES = 1 << 22
"""Entries looked at together: what is computed of them stays in the cache."""


def check_finite(models: Mapping[str, Checkpoint]) -> None:
    """Raise `CheckpointError` naming the first tensor of `models` that holds NaN or infinity.

    Files that several of them share are read once, in page cache the merges will use; large ones that were
    found finite before and have not changed are not read.
    """
    done: set[Path] = set()
    for name, model in models.items():
        for part in _parts(model):
            if part.path not in done:
                done.add(part.path)
                _check(name, part)


def _parts(model: Checkpoint) -> Iterator[Checkpoint]:
    """Yield the checkpoints whose files a model is made of: itself, or an adapter and its base."""
    if model.adaptation is None:
        yield model
    else:
        yield model.adaptation.adapter
        yield from _parts(model.adaptation.base)


def _check(name: str, model: Checkpoint) -> None:
    source = FileSource(model)

    def look(file: Path) -> str:
        floats = [each for each, spec in model.specs.items() if spec.is_float and model.files[each] == file]
        with ThreadPoolExecutor(max_workers=4) as pool:
            finite = pool.map(lambda tensor: _is_finite(source.read(tensor)), floats)
            wrong = next((tensor for tensor, fine in zip(floats, finite, strict=True) if not fine), None)
        if wrong is not None:
            raise CheckpointError(
                f"`{name}` cannot be merged: `{wrong}` of {model.path} holds NaN or infinite values; "
                "download or save it again"
            )
        return "yes"

    try:
        for file in model.weight_files:
            seen.found("finite", file, partial(look, file))
    finally:
        source.close()


def _is_finite(tensor: Tensor) -> bool:
    flat = tensor.reshape(-1)
    parts = (flat[start : start + _ENTRIES] for start in range(0, len(flat), _ENTRIES))
    return all(map(all_finite, parts))
