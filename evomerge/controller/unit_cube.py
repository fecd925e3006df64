"""Genes as a vector in the unit cube, for samplers that only know continuous vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.space.genes import GeneSpec
from evomerge.types import Value


class UnitCube:
    """One coordinate per number, one per option of a choice (the greatest wins)."""

    def __init__(self, genes: Sequence[GeneSpec]) -> None:
        self._genes = tuple(genes)
        self.size = sum(len(gene.choices) if gene.choices is not None else 1 for gene in genes)

    @property
    def start(self) -> list[float]:
        """The point where every gene has its starting value."""
        point: list[float] = []
        for gene in self._genes:
            if gene.choices is not None:
                point += [0.6 if choice == gene.start else 0.4 for choice in gene.choices]
            else:
                point.append(_to_unit(gene, float(gene.start)))
        return point

    def decode(self, x: NDArray[np.float64]) -> dict[str, Value]:
        """Return the value of each gene at the point `x (size,)`."""
        params: dict[str, Value] = {}
        at = 0
        for gene in self._genes:
            if gene.choices is not None:
                votes = x[at : at + len(gene.choices)]
                params[gene.name] = gene.choices[int(np.argmax(votes))]
                at += len(gene.choices)
            else:
                params[gene.name] = gene.at(float(x[at]))
                at += 1
        return params


def _to_unit(gene: GeneSpec, value: float) -> float:
    if gene.whole:  # the middle of what the number has of the range
        return (value - gene.low + 0.5) / (gene.high - gene.low + 1)
    if gene.log:
        return math.log(value / gene.low) / math.log(gene.high / gene.low)
    return (value - gene.low) / (gene.high - gene.low)
