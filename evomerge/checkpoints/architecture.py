"""A model's structure, read from its tensor names and config; there is no table of model families.

The layers are the longest numbered sequence that the names share (`model.layers.7.…`, `h.7.…`). Inside a
layer the first component names the block: attention, MLP, or the rest. Outside the layers an
embedding is recognised by its name, and everything else comes after the last layer.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.errors import CheckpointError

_NUMBERED = re.compile(r"^(.*?)\.(\d+)\.(.+)$")
_NORM = re.compile(r"norm|(^|_)ln(_|$|\d)")
_ATTENTION = re.compile(r"attn|attention|mixer")
_MLP = re.compile(r"mlp|ffn|feed_forward|moe|expert|(^|_)fc\d?($|_)")
_EMBEDDING = re.compile(r"embed|(^|\.)w[tp]e(\.|$)|(^|_)emb(_|$)")
_OUTPUT = re.compile(r"lm_head|embed_out|output_embed|(^|\.)output(\.|$)")
_NOT_TOKENS = re.compile(r"wpe|position|token_type")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Where each tensor stands: number of layers, their prefix, the embedding and the output head."""

    model_type: str
    layers: int
    prefix: str
    embedding: str
    head: str | None
    tied: bool

    def place(self, name: str) -> tuple[int | None, str]:
        """Return the layer (None outside) and module group of the tensor `name`."""
        if name.startswith(self.prefix + "."):
            index, _, inside = name[len(self.prefix) + 1 :].partition(".")
            if index.isdecimal():
                return int(index), _block(inside)
        return None, "embed" if is_embedding(name) else "head"


def is_embedding(name: str) -> bool:
    """Return whether the tensor `name` is a table of input vectors, such as tokens or positions."""
    return bool(_EMBEDDING.search(name)) and not _OUTPUT.search(name)


def is_vocabulary(name: str) -> bool:
    """Return whether a tensor is by its name an embedding of tokens or an output head."""
    if _NUMBERED.match(name) or _NORM.search(name) or _NOT_TOKENS.search(name):
        return False
    return bool(_EMBEDDING.search(name) or _OUTPUT.search(name))


def read_architecture(names: Iterable[str], config: Mapping[str, Any]) -> Architecture:
    """Return the structure of the model with these tensors. Raises `CheckpointError` if none shows."""
    names = list(names)
    prefix, layers = _layers(names)
    outside = [name for name in names if not name.startswith(prefix + ".")]
    embeddings = [name for name in outside if is_embedding(name)]
    if not embeddings:
        raise CheckpointError("no input embedding among the tensor names; is this a language model?")
    heads = [name for name in outside if _OUTPUT.search(name) and name.endswith("weight")]
    return Architecture(
        model_type=str(config["model_type"]),
        layers=layers,
        prefix=prefix,
        embedding=embeddings[0] if len(embeddings) == 1 else _token_embedding(embeddings),
        head=heads[0] if heads else None,
        tied=not heads,
    )


def is_head(name: str) -> bool:
    """Return whether the tensor `name` belongs to an output head."""
    return bool(_OUTPUT.search(name))


def _layers(names: list[str]) -> tuple[str, int]:
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in names:
        if match := _NUMBERED.match(name):
            numbers[match[1]].add(int(match[2]))
    if not numbers:
        raise CheckpointError("no numbered layers among the tensor names; is this a language model?")
    prefix, found = max(numbers.items(), key=lambda entry: len(entry[1]))
    if found != set(range(len(found))):
        raise CheckpointError(f"the layers `{prefix}.N` are not numbered 0 to {len(found) - 1} without a gap")
    return prefix, len(found)


def _block(inside: str) -> str:
    """Return the module group of a tensor from its name inside the layer (`self_attn.q_proj.weight`)."""
    first = inside.partition(".")[0]
    if _NORM.search(first):
        return "rest"
    if _ATTENTION.search(first):
        return "attn"
    return "mlp" if _MLP.search(first) else "rest"


def _token_embedding(names: list[str]) -> str:
    """Return the token table among several embeddings (positions and token types are the others)."""
    tokens = [name for name in names if not _NOT_TOKENS.search(name)]
    return (tokens or names)[0]
