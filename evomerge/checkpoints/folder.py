"""A checkpoint folder, opened: its config, and which file holds which tensor."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.checkpoints.headers import TensorSpec, read_header
from evomerge.checkpoints.measured import Measured
from evomerge.errors import CheckpointError
from evomerge.types import Statistic

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
_ADAPTER = "adapter_config.json"
_PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model on disk. `specs` and `files` are by tensor name, in the order of the files.

    `statistics` are what was measured on it, as far as it is known here.
    """

    path: Path
    config: Mapping[str, Any]
    specs: Mapping[str, TensorSpec]
    files: Mapping[str, Path]
    statistics: Mapping[Statistic, Measured] = field(default_factory=dict)

    @cached_property
    def weight_files(self) -> tuple[Path, ...]:
        """The safetensors files, each once, in order."""
        return tuple(dict.fromkeys(self.files.values()))


def open_checkpoint(path: Path) -> Checkpoint:
    """Return the checkpoint in `path`. Raises `CheckpointError` saying what is missing or broken."""
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint folder at {path}")
    config = _config(path)
    specs: dict[str, TensorSpec] = {}
    files: dict[str, Path] = {}
    for file in _weight_files(path):
        header = read_header(file)
        repeated = specs.keys() & header.keys()
        if repeated:
            raise CheckpointError(f"{path}: tensor `{min(repeated)}` stands in two files")
        specs |= header
        files |= dict.fromkeys(header, file)
    if not specs:
        raise CheckpointError(f"{path} holds no tensors")
    return Checkpoint(path=path, config=config, specs=specs, files=files)


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if (path / _ADAPTER).is_file() and not file.is_file():
        raise CheckpointError(
            f"{path} is a LoRA adapter, not a whole model: merge it into its base first "
            "(PEFT's `merge_and_unload`)"
        )
    if not file.is_file():
        raise CheckpointError(f"{path} is not a checkpoint: it has no config.json")
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error
    if not isinstance(config, dict) or not config.get("model_type"):
        raise CheckpointError(f"{file} names no `model_type`, so the architecture is unknown")
    if "auto_map" in config:
        raise CheckpointError(f"{path} needs code of its own (`auto_map` in config.json), which is not run")
    return config


def _weight_files(path: Path) -> list[Path]:
    if (path / _INDEX).is_file():
        return _indexed(path)
    if (path / _SINGLE).is_file():
        return [path / _SINGLE]
    pickled = [name for name in _PICKLES if (path / name).exists()]
    if pickled:
        raise CheckpointError(
            f"{path} holds pickled weights ({pickled[0]}), which can run code when loaded; "
            "save it again with `save_pretrained` to get safetensors"
        )
    raise CheckpointError(f"{path} is not a checkpoint: it has no {_SINGLE} and no {_INDEX}")


def _indexed(path: Path) -> list[Path]:
    """Return the shards an index names, each a plain file name inside the folder."""
    try:
        named = json.loads((path / _INDEX).read_text(encoding="utf-8"))["weight_map"].values()
        shards = list(dict.fromkeys(map(str, named)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path / _INDEX} is not an index of safetensors shards") from error
    for shard in shards:
        if Path(shard).name != shard or shard in ("", ".", ".."):
            raise CheckpointError(f"{path / _INDEX} names `{shard}`, which leaves the folder")
        if not (path / shard).is_file():
            raise CheckpointError(f"{path} is incomplete: the shard {shard} is missing")
    return [path / shard for shard in shards]
