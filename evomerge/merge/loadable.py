"""Whether transformers can run what a source's folder holds, found out before any weight is read.

A model is loaded from its config and the names and shapes of its tensors alone, on torch's `meta` device,
which has no memory: a config that lies costs nothing. A tokenizer is loaded as the evaluator does.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers

from evomerge.checkpoints.compatible import check_layers, has_tokenizer
from evomerge.checkpoints.dtypes import DTYPES
from evomerge.checkpoints.folder import Checkpoint
from evomerge.errors import CheckpointError
from evomerge.merge.memory import auto_class, check_known


def check_loadable(name: str, checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` unless transformers accepts the config, the shapes and the tokenizer."""
    check_model(name, checkpoint)
    check_tokenizer(name, checkpoint.home)


def check_model(name: str, checkpoint: Checkpoint) -> None:
    """Raise `CheckpointError` unless transformers makes a model of the config that has these weights."""
    check_known(checkpoint.config["model_type"])
    check_layers(name, checkpoint)
    found = _loading(name, checkpoint)
    if mismatched := sorted(found["mismatched_keys"]):
        tensor, stored, wanted = mismatched[0]
        raise CheckpointError(
            f"`{name}` does not fit its own config.json: by that `{tensor}` would be {list(wanted)}, and the "
            f"weights in {checkpoint.path} have {list(stored)}"
        )
    if found["missing_keys"]:
        raise CheckpointError(
            f"`{name}` is incomplete: a `{checkpoint.config['model_type']}` of its config.json needs "
            f"`{min(found['missing_keys'])}`, which the weights in {checkpoint.path} lack"
        )


def check_tokenizer(name: str, folder: Path) -> None:
    """Raise `CheckpointError` unless the folder has a tokenizer that transformers accepts."""
    if not has_tokenizer(folder):
        raise CheckpointError(f"`{name}` has no tokenizer in {folder}")
    try:
        with _quiet():
            transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # whatever a file can make its parsers raise
        raise CheckpointError(
            f"the tokenizer of `{name}` in {folder} cannot be loaded ({_said(error)}); save it again with "
            "`save_pretrained`"
        ) from error


def _loading(name: str, checkpoint: Checkpoint) -> Mapping[str, Any]:
    """Return what transformers says of loading the checkpoint, of which nothing is read."""
    content = dict(checkpoint.config)
    state = {
        tensor: torch.empty(spec.shape, dtype=DTYPES[spec.dtype], device="meta")
        for tensor, spec in checkpoint.specs.items()
    }
    try:
        with _quiet():
            config = transformers.AutoConfig.for_model(content.pop("model_type"), **content)
            with torch.device("meta"):
                kind = type(auto_class(checkpoint.config).from_config(config))
            _, info = kind.from_pretrained(
                None,
                config=config,
                state_dict=state,
                device_map="meta",
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
    except Exception as error:  # whatever a config can make its model's code raise
        raise CheckpointError(
            f"transformers {transformers.__version__} cannot make a model of the config.json of `{name}` in "
            f"{checkpoint.path}: {_said(error)}"
        ) from error
    found: Mapping[str, Any] = info
    return found


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep transformers from drawing a bar, and from telling at length what is told here in a sentence."""
    said, drawn = transformers.logging.get_verbosity(), transformers.logging.is_progress_bar_enabled()
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        transformers.logging.set_verbosity(said)
        if drawn:
            transformers.logging.enable_progress_bar()  # type: ignore[no-untyped-call]


def _said(error: Exception) -> str:
    """Return the kind of an error and the last line of its text, which is the telling one."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1].strip()}" if lines else type(error).__name__
