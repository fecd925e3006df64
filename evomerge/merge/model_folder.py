"""A plan as a folder that `from_pretrained` loads: weights, configs, tokenizer and what lies beside them."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from evomerge.checkpoints.digest import PROCESSOR_FILES
from evomerge.checkpoints.folder import Checkpoint, read_json
from evomerge.checkpoints.tensors import open_library
from evomerge.checkpoints.tokenizer import CARRIED
from evomerge.checkpoints.vocabulary import special_ids, with_special
from evomerge.errors import RequestError
from evomerge.merge.compiling import LEAST_PARAMETERS_ONCE, Loops, can_compile
from evomerge.merge.disk import SHARD_BYTES, write_weights
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Plan

_BESIDE = ("LICENSE", "LICENSE.txt", "LICENSE.md", *PROCESSOR_FILES)
_GENERATION = "generation_config.json"
_WRITTEN = ("config.json", _GENERATION, *CARRIED, *_BESIDE)
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_SPARE_BYTES = 64 << 20


def is_model_file(name: str) -> bool:
    """Return whether `write_model` writes files of this name."""
    return name in _WRITTEN or _WEIGHTS.fullmatch(name) is not None


def check_room(folder: Path, plan: Plan) -> None:
    """Raise `RequestError` unless the disk of `folder` has room for the plan's model."""
    free, need = shutil.disk_usage(folder).free, plan.nbytes + _SPARE_BYTES
    if free < need:
        raise RequestError(
            f"the checkpoint needs {need / 1e9:.1f} GB, and {folder} has {free / 1e9:.1f} GB left"
        )


def write_model(
    plan: Plan,
    sources: Mapping[str, Checkpoint],
    folder: Path,
    *,
    device: torch.device,
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the planned model of these sources, looked through by `check_finite`, merged on `device`."""
    library = open_library(sources, plan.models, known_finite=sources.keys())
    loops = Loops() if plan.parameters >= LEAST_PARAMETERS_ONCE and can_compile(device) else None
    try:
        write_weights(Execution(plan, library, device=device, loops=loops), folder, shard_bytes=shard_bytes)
    finally:
        library.close()
    (folder / "config.json").write_text(json.dumps(plan.config, indent=2) + "\n", encoding="utf-8")
    assert plan.tokenizer is not None  # plans of recipes have one
    plan.tokenizer.write(folder)
    template = sources[plan.template].home
    if plan.special is not None:
        _write_generation(folder, template, plan.tokenizer.folder, plan.special)
    for name in _BESIDE if plan.special is not None else (*_BESIDE, _GENERATION):
        if (template / name).is_file():
            shutil.copyfile(template / name, folder / name)


def _write_generation(folder: Path, template: Path, words: Path, special: Mapping[str, Any]) -> None:
    """Write the template's generation config with the special tokens of the model whose words it has."""
    own, theirs = (_table(source / _GENERATION) for source in (template, words))
    if own or theirs:
        content = with_special(own, special_ids(theirs) or special)
        (folder / _GENERATION).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _table(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file, nothing if it is not there."""
    content: dict[str, Any] = read_json(file) if file.is_file() else {}
    return content
