"""A model's structure, read from its tensor names and config; there is no table of model families.

The layers are the longest numbered sequence that the names share (`model.layers.7.…`, `h.7.…`). Inside a
layer the first component names the block: attention, MLP, or the rest. Outside the layers an
embedding is recognised by its name, and everything else comes after the last layer. Of a model that also
sees, this is the structure of its language tower (`language.py`); the rest has no place in a merge.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from evomerge.checkpoints.language import EMBEDDING, NUMBERED, OUTPUT, Tower, find_tower
from evomerge.errors import CheckpointError

_NORM = re.compile(r"norm|(^|_)ln(_|$|\d)")
_ATTENTION = re.compile(r"attn|attention|mixer")
_MLP = re.compile(r"mlp|ffn|feed_forward|moe|expert|(^|_)fc\d?($|_)")
_NOT_TOKENS = re.compile(r"wpe|position|token_type")
_CROSS = re.compile(r"\.cross_attn\.")


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """Where each tensor stands: number of layers, their prefix, the embedding and the output head.

    `tower` is the language tower they belong to, or None if the model is nothing else.
    """

    model_type: str
    layers: int
    prefix: str
    embedding: str
    head: str | None
    tied: bool
    tower: Tower | None = None

    def plain(self, name: str) -> str | None:
        """Return what a plain LLM calls the tensor `name`; None if it is not the language model's."""
        return self.tower.plain(name) if self.tower else name

    def own(self, plain: str) -> str:
        """Return the name in this model of what a plain LLM calls `plain`."""
        return self.tower.own(plain) if self.tower else plain

    def place(self, name: str) -> tuple[int | None, str]:
        """Return the layer (None outside) and module group of the tensor `name`.

        What is not the language model's is `rest` outside the layers; it is copied, never merged.
        """
        if self.plain(name) is None:
            return None, "rest"
        if name.startswith(self.prefix + "."):
            index, _, inside = name[len(self.prefix) + 1 :].partition(".")
            if index.isdecimal():
                return int(index), _block(inside)
        return None, "embed" if is_embedding(name) else "head"


def is_embedding(name: str) -> bool:
    """Return whether the tensor `name` is a table of input vectors, such as tokens or positions."""
    return bool(EMBEDDING.search(name)) and not OUTPUT.search(name)


def is_vocabulary(name: str) -> bool:
    """Return whether a tensor is by its name an embedding of tokens or an output head."""
    if NUMBERED.match(name) or _NORM.search(name) or _NOT_TOKENS.search(name):
        return False
    return bool(EMBEDDING.search(name) or OUTPUT.search(name))


def read_architecture(names: Iterable[str], config: Mapping[str, Any]) -> Architecture:
    """Return the structure of the model with these tensors. Raises `CheckpointError` if none shows."""
    names = list(names)
    tower = find_tower(names, config)
    if tower is not None:
        names = [name for name in names if tower.plain(name) is not None]
        _check_uncrossed(names, config)
    prefix, layers = _layers(names)
    outside = [name for name in names if not name.startswith(prefix + ".")]
    embeddings = [name for name in outside if is_embedding(name)]
    if not embeddings:
        raise CheckpointError("no input embedding among the tensor names; is this a language model?")
    heads = [name for name in outside if OUTPUT.search(name) and name.endswith("weight")]
    return Architecture(
        model_type=str(config["model_type"]),
        layers=layers,
        prefix=prefix,
        embedding=embeddings[0] if len(embeddings) == 1 else _token_embedding(embeddings),
        head=heads[0] if heads else None,
        tied=not heads,
        tower=tower,
    )


def is_norm(name: str) -> bool:
    """Return whether the tensor `name` belongs to a norm."""
    return any(_NORM.search(module) for module in name.split("."))


def is_head(name: str) -> bool:
    """Return whether the tensor `name` belongs to an output head."""
    return bool(OUTPUT.search(name))


def _check_uncrossed(names: list[str], config: Mapping[str, Any]) -> None:
    if crossed := next(filter(_CROSS.search, names), None):
        raise CheckpointError(
            f"a `{config['model_type']}` has layers that attend to the image between those of its language "
            f"model (`{crossed}`), so its layers are not numbered as the LLM's and cannot be merged with them"
        )


def _layers(names: list[str]) -> tuple[str, int]:
    numbers: dict[str, set[int]] = defaultdict(set)
    for name in names:
        if match := NUMBERED.match(name):
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
