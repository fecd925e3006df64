"""LoRA adapters as models: a folder with `adapter_config.json`, opened over the base it was trained on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.checkpoints.adapter import read_adapter
from evomerge.checkpoints.compatible import has_tokenizer, vocabulary
from evomerge.checkpoints.digest import digest
from evomerge.checkpoints.folder import (
    ADAPTER_CONFIG,
    Adaptation,
    Checkpoint,
    is_adapter,
    open_checkpoint,
    pickle_refusal,
    read_files,
    read_json,
)
from evomerge.checkpoints.locate import repository
from evomerge.checkpoints.tied import is_copied, read_structure
from evomerge.errors import CheckpointError

_WEIGHTS = "adapter_model.safetensors"
_PICKLED = "adapter_model.bin"


def adapted_by(name: str, folder: Path, stated: str | None, base: str | None) -> str | None:
    """Return which model the source in `folder` changes if it is an adapter, else None.

    That is the one `stated`, else the merge's `base`. Raises `CheckpointError` for an adapter without any,
    or a whole model that is said to have one.
    """
    if not is_adapter(folder):
        if stated is not None:
            raise CheckpointError(f"{folder} is a whole model, so leave out `adapts: {stated}`")
        return None
    if (over := stated or base) is None:
        raise CheckpointError(
            f"`{name}` is a LoRA adapter, and there is no base to put it on; name the model it was trained "
            "on as the merge's `base`, or as `adapts` of this source"
        )
    return over


def check_whole(name: str, over: str, folder: Path) -> None:
    """Raise `CheckpointError` if what the adapter `name` is for, `over` in `folder`, is an adapter, too."""
    if is_adapter(folder):
        raise CheckpointError(
            f"`{name}` is a LoRA adapter for `{over}`, which is an adapter, too; name the whole model it was "
            "trained on as `adapts` of this source"
        )


def open_adapter(path: Path, base: Checkpoint, *, allow_pickle: bool = False) -> Checkpoint:
    """Return the adapter in `path` over `base`, as a model like any other.

    Raises `CheckpointError` if it cannot be read, does not fit the base, or has a vocabulary of its own.
    """
    if not path.is_dir():
        raise CheckpointError(f"no adapter folder at {path}")
    if base.adaptation is not None:
        raise CheckpointError(f"{path} cannot adapt {base.path}, which is itself an adapter")
    config = _config(path)
    specs, files = read_files(path, [_weights(path, allow_pickle=allow_pickle)])
    adapter = Checkpoint(path=path, config=config, specs=specs, files=files)
    structure = read_structure(base)
    whole = {name: spec for name, spec in base.specs.items() if not is_copied(name, structure)}
    try:
        edits = read_adapter(config, specs, whole, tied=structure.embedding if structure.tied else None)
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error
    if has_tokenizer(path) and vocabulary(path) != vocabulary(base.path):
        raise CheckpointError(
            f"{path} has a tokenizer whose vocabulary is not that of its base {base.path}; only adapters "
            "that keep the base's vocabulary can be merged"
        )
    added = {name: base.specs[origin] for name, origin in edits.added.items()}
    return replace(
        base,
        path=path,
        specs={**whole, **added},
        files={name: file for name, file in base.files.items() if name in whole},
        adaptation=Adaptation(base=base, adapter=adapter, edits=edits),
    )


def check_base(name: str, path: Path, over: str, source: str, base: Checkpoint) -> None:
    """Raise `CheckpointError` unless the adapter in `path` says that it was trained on `base`.

    The base answers to the last word of its folder, of its hub id or of the `source` that led to it, and to
    any folder that holds the same model.
    """
    said = _config(path).get("base_model_name_or_path")
    if isinstance(said, str) and said:
        if set(_last_words(said)) & {*_last_words(source), *_last_words(str(base.path))}:
            return
        there = Path(said)
        if (there / "config.json").is_file() and digest(open_checkpoint(there)) == digest(base):
            return
    trained = f"was trained on `{said}`" if said else "does not say what it was trained on"
    raise CheckpointError(
        f"`{name}` is an adapter for another base: it {trained}, and `{over}` is `{source}`; if that is the "
        f"same model, say so with `adapts: {over}`"
    )


def _last_words(place: str) -> Iterator[str]:
    """Yield what a folder, a hub id or a `zoo:` name ends with, and the repository of a hub's snapshot."""
    yield place.rstrip("/\\").replace("\\", "/").rpartition("/")[2].removeprefix("zoo:").casefold()
    if (repo := repository(Path(place))) is not None:
        yield repo.rpartition("/")[2].casefold()


def _config(path: Path) -> dict[str, Any]:
    config = read_json(path / ADAPTER_CONFIG)
    if not isinstance(config, dict):
        raise CheckpointError(f"{path / ADAPTER_CONFIG} is not the config of an adapter: it is no table")
    return config


def _weights(path: Path, *, allow_pickle: bool) -> Path:
    if (path / _WEIGHTS).is_file():
        return path / _WEIGHTS
    if (path / _PICKLED).is_file():
        if not allow_pickle:
            raise pickle_refusal(path, _PICKLED)
        return path / _PICKLED
    raise CheckpointError(f"{path} is not a LoRA adapter that can be read: it has no {_WEIGHTS}")
