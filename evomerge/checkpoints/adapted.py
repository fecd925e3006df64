"""Merging a LoRA adapter into plain dicts of tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from evomerge.checkpoints.adapter import read_adapter
from evomerge.checkpoints.dtypes import DTYPES
from evomerge.checkpoints.tensors import AdaptedSource, DictSource
from evomerge.errors import MergeError


@dataclass(frozen=True, kw_only=True)
class Adapted:
    """A base with an adapter merged into it, and by how much the changed tensors differ, in float32."""

    weights: Mapping[str, Tensor]
    deltas: Mapping[str, Tensor]


def apply_adapter(
    base: Mapping[str, Tensor],
    adapter: Mapping[str, Tensor],
    config: Mapping[str, Any],
    *,
    module_kind: str | None = None,
    tied: str | None = None,
) -> Adapted:
    """Return `base` with the LoRA `adapter` merged into it, in the base's dtypes, and the changes.

    `adapter` has the names of PEFT's files, `config` the words of its `adapter_config.json`. `module_kind`
    (`linear` or `conv1d`) says how square weights are stored where the shapes in the base do not; `tied`
    names the embedding of a base whose output head is that. A tensor that the adapter leaves alone is the
    base's own, and has no change.

    Raises `CheckpointError` if the adapter does not fit the base or means something that cannot be carried
    out, `MergeError` if a value is not finite.
    """
    home, parts = DictSource(base), DictSource(adapter)
    edited = read_adapter(config, parts.specs, home.specs, tied=tied, module_kind=module_kind)
    source = AdaptedSource(home, parts, edited)
    weights, deltas = dict(base), {}
    for name in dict.fromkeys((*edited.edits, *edited.added)):
        deltas[name] = source.delta(name)
        weights[name] = source.read(name).to(DTYPES[source.specs[name].dtype])
        if not bool(weights[name].isfinite().all()):
            raise MergeError(f"`{name}` of the adapted model holds NaN or infinite values")
    return Adapted(weights=weights, deltas=deltas)
