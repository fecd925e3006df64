"""What every form of a path has: the models it takes layers from, its ends, its length."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, TypeAlias

from pydantic import AfterValidator, Field, field_validator

from evomerge.errors import SpaceError
from evomerge.recipe import Ends, Merge, Slot
from evomerge.recipe.path import LONGEST
from evomerge.space.genes import GeneSpec
from evomerge.space.tables import Name, Scales, Table
from evomerge.types import Params, Value

MERGED = "merged"
"""What a path calls the space's own merge."""

SWAPPED = "swapped"
"""What a recipe calls the merge that a layer swap is."""


def _some(names: str | list[str]) -> str | list[str]:
    if isinstance(names, list) and (not names or len(set(names)) < len(names)):
        raise ValueError(f"must name at least one model, and each once, found {', '.join(names) or 'none'}")
    return names


Names: TypeAlias = Annotated[Name | list[Name], AfterValidator(_some)]
"""A model, or several to choose from."""


@dataclass(frozen=True, kw_only=True)
class Parts:
    """The models a path may take layers from, the first one where the search begins, all of so many `layers`.

    `influence` are the influences of the layers (`evaluate/layers.py`) of those that were measured.
    """

    names: tuple[str, ...]
    layers: int
    influence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @property
    def last(self) -> int:
        """The number of the last layer."""
        return self.layers - 1

    def whole(self, name: str) -> tuple[Slot, ...]:
        """Return all layers of a model."""
        return tuple(Slot(model=name, layer=layer) for layer in range(self.layers))


@dataclass(frozen=True, kw_only=True)
class Layout:
    """What the genes of a path stand for: a stack with its ends, or a layer swap, which is a merge."""

    path: tuple[Slot, ...] = ()
    ends: Ends | None = None
    swap: Merge | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """The models it takes layers or ends from, each once."""
        ends = (self.ends.embed, self.ends.head) if self.ends else ()
        swapped = self.swap.sources if self.swap else ()
        named = (*(slot.model for slot in self.path), *swapped, *ends)
        return tuple(dict.fromkeys(name for name in named if name is not None))


class Form(Table, ABC):
    """A form of paths: its keys in a space, its genes, and the stacks that they stand for."""

    models: list[Name] | None = Field(default=None, min_length=1)
    """The models to take layers from, sources or `merged` (default: the sources that are merged). The search
    begins with all of the first."""

    @abstractmethod
    def genes(self, parts: Parts) -> tuple[GeneSpec, ...]:
        """Return the genes. Raises `SpaceError` if the models have too few layers for what is asked."""

    @abstractmethod
    def layout(self, params: Params, parts: Parts) -> Layout:
        """Return what `params`, one value per gene, stand for."""

    @abstractmethod
    def tour(self, parts: Parts) -> Iterator[Layout]:
        """Yield layouts that hold every model beside the others, to see whether they fit."""

    @property
    def named(self) -> tuple[str, ...]:
        """The models it names besides `models`."""
        return ()

    def idle(self, params: Params, parts: Parts) -> Iterable[str]:
        """Return the genes on which nothing depends while the others have these values."""
        del params, parts
        return ()

    @field_validator("models")
    @classmethod
    def _each_once(cls, names: list[str] | None) -> list[str] | None:
        if names is not None and len(set(names)) < len(names):
            raise ValueError(f"must name each model once, found {', '.join(names)}")
        return names


class Stack(Form):
    """A stack of layers from several models."""

    embed: Names | None = None
    """Whose embedding it has: a model, or a list to choose from (default: the first model's)."""
    head: Names | None = None
    """Whose final norm and output head it has: a model, or a list to choose from (default: the first's)."""
    scale: Scales | float = Field(default=1.0)
    """What multiplies the hidden state where the path goes over to another run of layers."""
    most: Annotated[int, Field(ge=1, le=LONGEST)] | None = None
    """How many layers it has at most (default: twice as many as the models)."""
    pinned: bool = True
    """Whether it begins with a first layer and ends with a last one."""

    @field_validator("scale")
    @classmethod
    def _positive(cls, scale: Scales | float) -> Scales | float:
        if not isinstance(scale, Scales) and not 0 < scale < float("inf"):
            raise ValueError(f"must be above 0 and finite, as other scales cannot be folded, found {scale:g}")
        return scale

    @property
    def named(self) -> tuple[str, ...]:
        return (*listed(self.embed), *listed(self.head))

    def tour(self, parts: Parts) -> Iterator[Layout]:
        for name in dict.fromkeys([*parts.names, *self.named]):
            yield Layout(path=parts.whole(name), ends=self.ends({}, parts))

    def longest(self, parts: Parts) -> int:
        """Return the greatest number of layers a stack may have."""
        return self.most or min(2 * parts.layers, LONGEST)

    def check_room(self, parts: Parts) -> None:
        """Raise `SpaceError` if the pinned ends do not fit into the longest stack."""
        if self.pinned and self.longest(parts) < min(2, parts.layers):
            raise SpaceError(
                f"a path of at most {self.longest(parts)} layer has no room for a first and a last layer; "
                "raise `most`, or set `pinned: false`"
            )

    def end_genes(self) -> tuple[GeneSpec, ...]:
        """Return the genes that choose whose ends the stack has."""
        asked = (("path/embed", listed(self.embed)), ("path/head", listed(self.head)))
        return tuple(chosen(name, options) for name, options in asked if len(options) > 1)

    def ends(self, params: Params, parts: Parts) -> Ends:
        """Return whose ends the stack has."""
        embed, head = (
            params.get(gene, next(iter(listed(names)), parts.names[0]))
            for gene, names in (("path/embed", self.embed), ("path/head", self.head))
        )
        return Ends(embed=str(embed), head=str(head))

    def scale_gene(self, name: str) -> tuple[GeneSpec, ...]:
        """Return the gene of a scale, if scales are searched."""
        if not isinstance(self.scale, Scales):
            return ()
        low, high = self.scale.low, self.scale.high
        return (GeneSpec(name=name, low=low, high=high, log=self.scale.log, start=min(max(1.0, low), high)),)

    def scale_at(self, name: str, params: Params) -> float:
        """Return the scale that a gene says, or the one that is not searched."""
        return float(params[name]) if isinstance(self.scale, Scales) else float(self.scale)


def listed(names: str | list[str] | None) -> tuple[str, ...]:
    """Return the names a key lists, of which there may be one or none."""
    return (names,) if isinstance(names, str) else tuple(names or ())


def chosen(name: str, options: Sequence[Value]) -> GeneSpec:
    """Return the gene that chooses among `options`, the first to begin with."""
    return GeneSpec(name=name, choices=tuple(options), start=options[0])
