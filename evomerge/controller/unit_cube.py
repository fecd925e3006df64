"""Genes as a vector in the unit cube, for samplers that only know continuous vectors."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from evomerge.space.genome import GeneSpec
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
                params[gene.name] = _from_unit(gene, float(x[at]))
                at += 1
        return params


def _to_unit(gene: GeneSpec, value: float) -> float:
    if gene.log:
        return math.log(value / gene.low) / math.log(gene.high / gene.low)
    return (value - gene.low) / (gene.high - gene.low)


def _from_unit(gene: GeneSpec, share: float) -> float:
    if gene.log:
        value = float(gene.low * (gene.high / gene.low) ** share)
    else:
        value = gene.low + share * (gene.high - gene.low)
    return min(max(value, gene.low), gene.high)
