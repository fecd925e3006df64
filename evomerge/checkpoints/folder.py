"""A checkpoint folder, opened: its config, and which file holds which tensor.

A LoRA adapter is opened over its base (`adapters.py`) and then looks like any other checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from evomerge.checkpoints.architecture import Architecture, is_head, read_architecture
from evomerge.checkpoints.edits import Adapter
from evomerge.checkpoints.headers import TensorSpec, read_header
from evomerge.checkpoints.locate import RUN_FILE
from evomerge.checkpoints.measured import Measured
from evomerge.errors import CheckpointError
from evomerge.reading import read_json_file
from evomerge.types import Statistic

_INDEX = "model.safetensors.index.json"
_SINGLE = "model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
_PICKLED_INDEX = "pytorch_model.bin.index.json"
_PICKLED = "pytorch_model.bin"
_OTHER_PICKLE = "consolidated.00.pth"
_LONGEST_NAME = 255


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model on disk. `specs` and `files` are by tensor name, in the order of the files.

    An adapter has a folder of its own and all else from its base; `adaptation` says how it changes that.
    `statistics` are what was measured on the model, as far as it is known here.
    """

    path: Path
    config: Mapping[str, Any]
    specs: Mapping[str, TensorSpec]
    files: Mapping[str, Path]
    adaptation: Adaptation | None = None
    statistics: Mapping[Statistic, Measured] = field(default_factory=dict)

    @property
    def home(self) -> Path:
        """The folder with the config and the tokenizer: an adapter's are its base's."""
        return self.adaptation.base.home if self.adaptation else self.path

    @cached_property
    def weight_files(self) -> tuple[Path, ...]:
        """The files of weights, each once, in order."""
        return tuple(dict.fromkeys(self.files.values()))

    @cached_property
    def structure(self) -> Architecture:
        """What its names and config say; `tied.read_structure` tells a copied head from one of its own."""
        return read_architecture(self.specs, self.config)


@dataclass(frozen=True, kw_only=True)
class Adaptation:
    """A LoRA adapter over its base: its own config and tensors, and what they do to the base's."""

    base: Checkpoint
    adapter: Checkpoint
    edits: Adapter


def is_adapter(path: Path) -> bool:
    """Return whether the folder holds an adapter and no whole model."""
    whole = (_INDEX, _SINGLE, _PICKLED_INDEX, _PICKLED, _OTHER_PICKLE)
    return (path / ADAPTER_CONFIG).is_file() and not any((path / name).exists() for name in whole)


def open_checkpoint(path: Path, *, allow_pickle: bool = False) -> Checkpoint:
    """Return the checkpoint in `path`, of pickled weights only if `allow_pickle` (see `pickled.py`).

    Raises `CheckpointError` saying what is missing or broken.
    """
    if not path.is_dir():
        raise CheckpointError(f"no checkpoint folder at {path}")
    config = _config(path)
    found = _weight_files(path, allow_pickle=allow_pickle)
    specs, files = read_files(path, found)
    return Checkpoint(path=path, config=config, specs=specs, files=files)


def read_files(path: Path, found: list[Path]) -> tuple[dict[str, TensorSpec], dict[str, Path]]:
    """Return what each tensor in the files `found` of the folder `path` is, and in which file it stands."""
    specs: dict[str, TensorSpec] = {}
    files: dict[str, Path] = {}
    for file in found:
        header = _header(file)
        repeated = specs.keys() & header.keys()
        if repeated:
            raise CheckpointError(f"{path}: tensor `{min(repeated)}` stands in two files")
        specs |= header
        files |= dict.fromkeys(header, file)
    if not specs:
        raise CheckpointError(f"{path} holds no tensors")
    return specs, files


def read_json(file: Path) -> Any:
    """Return the content of a JSON file. Raises `CheckpointError` if it is not JSON."""
    try:
        return read_json_file(file)
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise CheckpointError(f"{file} is not JSON: {error}") from error


def pickle_refusal(path: Path, name: str) -> CheckpointError:
    """Return the error for pickled weights nobody has allowed."""
    return CheckpointError(
        f"{path} holds pickled weights ({name}), which can run code when loaded; save it again with "
        "`save_pretrained` to get safetensors, or take them as they are with `--allow-pickle`"
    )


def _header(file: Path) -> dict[str, TensorSpec]:
    """Return the tensors of a file; the head of a tied model, which a pickle may repeat, is left out."""
    if file.suffix == ".safetensors":
        return read_header(file)
    from evomerge.checkpoints.pickled import PickledFile  # loads torch

    opened = PickledFile(file)
    embeddings = [name for name in opened.specs if not is_head(name)]
    return {
        name: spec
        for name, spec in opened.specs.items()
        if not (is_head(name) and any(opened.same(name, other) for other in embeddings))
    }


def _config(path: Path) -> dict[str, Any]:
    file = path / "config.json"
    if is_adapter(path):
        raise CheckpointError(
            f"{path} is a LoRA adapter, not a whole model; it can be a source where its base is another"
        )
    if not file.is_file():
        hint = "; a model that it found is a source as {run: FOLDER}" if (path / RUN_FILE).is_file() else ""
        what = "is the folder of a run" if hint else "is not a checkpoint"
        raise CheckpointError(f"{path} {what}: it has no config.json{hint}")
    config: Any = read_json(file)
    kind = config.get("model_type") if isinstance(config, dict) else None
    if not isinstance(kind, str) or not kind:
        raise CheckpointError(f"{file} names no `model_type`, so the architecture is unknown")
    if "auto_map" in config:
        raise CheckpointError(f"{path} needs code of its own (`auto_map` in config.json), which is not run")
    return dict(config)


def _weight_files(path: Path, *, allow_pickle: bool) -> list[Path]:
    if (path / _INDEX).is_file():
        return _indexed(path, _INDEX)
    if (path / _SINGLE).is_file():
        return [path / _SINGLE]
    for name in (_PICKLED_INDEX, _PICKLED):
        if (path / name).is_file():
            if not allow_pickle:
                raise pickle_refusal(path, name)
            return _indexed(path, name) if name == _PICKLED_INDEX else [path / name]
    if (path / _OTHER_PICKLE).exists():
        raise CheckpointError(
            f"{path} holds pickled weights ({_OTHER_PICKLE}) under names that transformers does not read; "
            "convert it, and save it with `save_pretrained` to get safetensors"
        )
    raise CheckpointError(f"{path} is not a checkpoint: it has no {_SINGLE} and no {_INDEX}")


def _indexed(path: Path, index: str) -> list[Path]:
    """Return the shards an index names, each a plain file name inside the folder."""
    kind = ".bin" if index == _PICKLED_INDEX else ".safetensors"
    try:
        shards = list(dict.fromkeys(read_json(path / index)["weight_map"].values()))
    except (LookupError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path / index} is not an index of {kind[1:]} shards") from error
    for shard in shards:
        if not isinstance(shard, str) or len(shard) > _LONGEST_NAME:
            raise CheckpointError(f"{path / index} names {str(shard)[:40]!r}…, which is no name of a file")
        if Path(shard).name != shard or shard in ("", ".", ".."):
            raise CheckpointError(f"{path / index} names `{shard}`, which leaves the folder")
        if Path(shard).suffix != kind:
            raise CheckpointError(f"{path / index} names `{shard}`, which is no {kind} file")
        if not (path / shard).is_file():
            raise CheckpointError(f"{path} is incomplete: the shard {shard} is missing")
    return [path / shard for shard in shards]
