"""What the tables of a space file are made of: names, counts, ranges, runs of layers."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

from evomerge.errors import SpaceError
from evomerge.types import Value

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.\-]*$")]
Count = Annotated[int, Field(ge=1)]
Number = Annotated[int, Field(ge=0)]

_RUNS = 4  # of layers, unless the space says otherwise


class Table(BaseModel):
    """A table of keys, all of them known."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True)


class Range(Table):
    """A number between `low` and `high`, both possible."""

    low: FiniteFloat
    """The smallest value."""
    high: FiniteFloat
    """The largest value."""
    log: bool = False
    """Whether its logarithm is searched, so that 0.01 to 0.1 is as wide as 0.1 to 1."""

    @model_validator(mode="after")
    def _ordered(self) -> Range:
        if not self.low < self.high:
            raise ValueError(f"must have `low` below `high`, found {self.low:g} and {self.high:g}")
        if self.log and self.low <= 0:
            raise ValueError(f"must have `low` above 0 to be logarithmic, found {self.low:g}")
        return self


class WholeRange(Table):
    """A whole number from `low` to `high`, both possible."""

    low: Number
    """The smallest value."""
    high: Number
    """The largest value."""

    @model_validator(mode="after")
    def _ordered(self) -> WholeRange:
        if self.low > self.high:
            raise ValueError(f"must have `low` at most `high`, found {self.low} and {self.high}")
        return self


class Scales(Range):
    """A scale of hidden states between `low` and `high`, above 0 as only such scales fold into weights."""

    @model_validator(mode="after")
    def _positive(self) -> Scales:
        if self.low <= 0:
            raise ValueError(f"must have `low` above 0, as other scales cannot be folded, found {self.low:g}")
        return self


class Anchored(Table):
    """So many genes at equal distances along the layers; between them values are interpolated."""

    anchors: Annotated[int, Field(ge=2, le=1000)]
    """How many genes, from the first layer to the last."""


GeneRange: TypeAlias = Range | list[Value] | Value
"""A range, a list to choose from, or one fixed value."""

Runs: TypeAlias = Count | Literal["each"] | list[list[int]] | None
"""How the layers are cut: into so many equal runs, each by itself, or as listed [first, last]."""


def check_pairs(runs: object) -> None:
    """Raise `ValueError` for a listed run of layers that is not [first, last]."""
    for run in runs if isinstance(runs, list) else ():
        if len(run) != 2 or not 0 <= run[0] <= run[1]:
            raise ValueError(f"must list runs of layers [first, last] counted from 0, found {run}")


def runs_of(asked: Runs, layers: int) -> tuple[tuple[int, int], ...]:
    """Return the runs [first, last] that so many `layers` are cut into; by default four, or one per layer.

    Raises `SpaceError` if they do not tile the model.
    """
    if isinstance(asked, list):
        ends = [(first, last + 1) for first, last in asked]
        if [(0, 0), *ends][-1][1] != layers or any(a[1] != b[0] for a, b in pairwise([(0, 0), *ends])):
            raise SpaceError(
                f"runs of layers must cover layers 0 to {layers - 1} in order without gap or "
                f"overlap, found {asked}"
            )
        return tuple((first, last) for first, last in asked)
    if asked is None:
        asked = min(_RUNS, layers)
    count = layers if asked == "each" else int(asked)
    if count > layers:
        raise SpaceError(f"{count} runs of layers are asked for, but there are {layers} layers")
    edges = [i * layers // count for i in range(count + 1)]
    return tuple((low, high - 1) for low, high in pairwise(edges))


def run_label(first: int, last: int) -> str:
    """Return what genes call a run of layers."""
    return f"L{first}-{last}" if last > first else f"L{first}"
