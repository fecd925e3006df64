"""What an adapter can do to a tensor of its base, and which tensors it does it to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class Replace:
    """The tensor becomes the adapter's tensor `value`."""

    value: str


@dataclass(frozen=True, kw_only=True)
class Rows:
    """These rows become those of `value`: tokens with embeddings of their own."""

    value: str
    rows: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class LowRank:
    """Scale · B·A is added, transposed where the tensor is stored (in, out): Conv1D and embeddings."""

    a: str
    b: str
    scale: float
    transposed: bool


@dataclass(frozen=True, kw_only=True)
class Shift:
    """Scale · `value` is added: the bias of B."""

    value: str
    scale: float


@dataclass(frozen=True, kw_only=True)
class Magnitude:
    """DoRA: what the tensor has become is rescaled to the norms `value`, each taken along `dim`."""

    value: str
    dim: int


Edit: TypeAlias = Replace | Rows | LowRank | Shift | Magnitude


@dataclass(frozen=True, kw_only=True)
class Adapter:
    """The edits an adapter makes, in order, by the base's tensor names.

    `added` are tensors the adapted model has besides: the head of a tied model that the adapter unties, and
    the base's tensor that stands for it.
    """

    edits: Mapping[str, tuple[Edit, ...]]
    added: Mapping[str, str]
