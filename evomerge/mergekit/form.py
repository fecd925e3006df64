"""A recipe of mergekit as values: models, slices and what each level says of parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from evomerge.recipe.layered import Layered
from evomerge.space.document import Document, KeyPath

Parameters: TypeAlias = Mapping[str, Layered]


@dataclass(frozen=True, kw_only=True)
class Reference:
    """A model as mergekit names it: `path[@revision][+lora[@revision]]`."""

    path: str
    revision: str | None = None
    lora: str | None = None
    lora_revision: str | None = None

    def __str__(self) -> str:
        text = self.path + (f"@{self.revision}" if self.revision else "")
        if self.lora:
            text += f"+{self.lora}" + (f"@{self.lora_revision}" if self.lora_revision else "")
        return text


@dataclass(frozen=True, kw_only=True)
class Input:
    """A model in a slice, which of its layers (None: all), and its own parameters."""

    model: Reference
    layers: tuple[int, int] | None
    parameters: Parameters
    where: KeyPath


@dataclass(frozen=True, kw_only=True)
class Slice:
    """Layers of the output, each merged of those of its inputs; where models are listed, all layers."""

    inputs: tuple[Input, ...]
    base: Reference | None
    parameters: Parameters
    where: KeyPath


@dataclass(frozen=True, kw_only=True)
class Config:
    """One document: the method, the slices, and what holds for all of them."""

    document: Document
    name: str | None
    method: str
    base: Reference | None
    slices: tuple[Slice, ...]
    whole: bool
    parameters: Parameters
    dtype: str | None
    tokenizer: Reference | str | None
    tokenizer_at: KeyPath


def parsed_reference(text: str) -> Reference | None:
    """Return the model that mergekit's short form names; None if it names none."""
    model, plus, lora = text.partition("+")
    path, _, revision = model.partition("@")
    lora_path, _, lora_revision = lora.partition("@")
    if not path or (plus and not lora_path) or "+" in lora:
        return None
    return Reference(
        path=path,
        revision=revision or None,
        lora=lora_path or None,
        lora_revision=lora_revision or None,
    )
