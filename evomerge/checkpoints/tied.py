"""Whether a model's output head is its embedding, as transformers decides it on loading.

A tied model keeps no head of its own on disk. Some are saved with a copy of the embedding in its place: where
the config ties the two and both are on disk, transformers (5.23, `tie_weights`) ties them if they are equal.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.checkpoints.architecture import Architecture
from evomerge.checkpoints.folder import Checkpoint

_KEY = "tie_word_embeddings"


def read_structure(model: Checkpoint) -> Architecture:
    """Return the model's structure; `tied` also where it only holds a copy of its embedding as head."""
    structure = model.structure
    if structure.head is None or not _states_tied(model.config):
        return structure
    if structure.head not in model.files:  # an adapter gave it one
        return structure
    if model.specs[structure.head] != model.specs[structure.embedding]:
        return structure
    files = [model.files[name] for name in (structure.embedding, structure.head)]
    stamp = tuple(file.stat().st_mtime_ns for file in files)
    copied = _equal(files[0], structure.embedding, files[1], structure.head, stamp)
    return replace(structure, tied=copied)


def is_copied(tensor: str, structure: Architecture) -> bool:
    """Return whether the tensor is a tied model's copy of its embedding as head."""
    return structure.tied and tensor == structure.head


def head_name(model_type: str) -> str | None:
    """Return what transformers calls the output head of a type of model whose head is its embedding."""
    from transformers import CONFIG_MAPPING, MODEL_FOR_CAUSAL_LM_MAPPING

    if model_type not in CONFIG_MAPPING:
        return None
    kind = MODEL_FOR_CAUSAL_LM_MAPPING.get(CONFIG_MAPPING[model_type], None)
    tied = getattr(kind, "_tied_weights_keys", None) or {}
    return next((str(name) for name in tied if str(name).endswith(".weight")), None)


def _states_tied(config: Mapping[str, Any]) -> bool:
    """Return whether the config ties head and embedding, in its own words or by its type's default."""
    if _KEY in config:
        return bool(config[_KEY])
    inner = config.get("text_config")
    if isinstance(inner, dict) and _KEY in inner:
        return bool(inner[_KEY])
    return _tied_by_default(str(config["model_type"]))


@functools.cache
def _tied_by_default(model_type: str) -> bool:
    from transformers import CONFIG_MAPPING

    return model_type in CONFIG_MAPPING and bool(getattr(CONFIG_MAPPING[model_type](), _KEY, False))


@functools.lru_cache(maxsize=64)
def _equal(one: Path, tensor: str, other: Path, copy: str, stamp: tuple[int, ...]) -> bool:
    """Return whether two tensors are the same; `stamp` tells files of the same names apart."""
    del stamp
    import torch
    from safetensors import safe_open

    with safe_open(one, framework="pt") as mine, safe_open(other, framework="pt") as theirs:
        return torch.equal(mine.get_tensor(tensor), theirs.get_tensor(copy))
