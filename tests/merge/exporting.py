"""A plan written as a folder, and what a live model answers: the two sides of "scored is exported"."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evomerge.checkpoints.tensors import Library
from evomerge.merge.disk import SHARD_BYTES, write_weights
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Plan


def export(plan: Plan, library: Library, folder: Path, *, shard_bytes: int = SHARD_BYTES) -> Path:
    """Write weights and config of the plan into a new folder, and return it."""
    folder.mkdir()
    write_weights(Execution(plan, library), folder, shard_bytes=shard_bytes)
    (folder / "config.json").write_text(json.dumps(dict(plan.config)))
    return folder


def logits(model: Any) -> Tensor:
    """Return the logits of two sequences of the first 24 tokens, on storage of their own."""
    tokens = torch.arange(24).reshape(2, 12)
    with torch.no_grad():
        found: Tensor = model(tokens).logits
    return found.clone()
