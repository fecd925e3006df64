"""Which rows of which models make the rows of a merged model's embedding. No torch: planning uses it.

A row that a model lacks is the base's if the base has it, else the mean of those that do, else zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Index: TypeAlias = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, eq=False)
class Pick:
    """Rows `source` of a model's tensor, in the places `target` of the result, no place twice."""

    model: str
    source: Index
    target: Index


@dataclass(frozen=True, kw_only=True, eq=False)
class RowMap:
    """How a model's aligned tensor of `length` rows is gathered; what no pick fills is zero.

    The first pick is the model's own rows. The rows `averaged` are sums over as many models as
    `owners` says, still to be divided.
    """

    length: int
    picks: tuple[Pick, ...]
    averaged: Index
    owners: Index

    def keeps(self, rows: int) -> bool:
        """Return whether a tensor of `rows` rows comes out as it is."""
        own = self.picks[0]
        whole = rows == self.length == len(own.source)
        return whole and bool((own.source == own.target).all())

    def own(self) -> RowMap:
        """Return the map of the model's own rows alone; the others are zero."""
        nothing = self.averaged[:0]
        return RowMap(length=self.length, picks=self.picks[:1], averaged=nothing, owners=nothing)


def row_maps(own: Mapping[str, Index], base: str | None) -> dict[str, RowMap]:
    """Return each model's map, given for each result row the model's row, or -1 where it has none.

    All of `own` are of one length, which is that of the results.
    """
    has = {model: rows >= 0 for model, rows in own.items()}
    owners = np.sum(list(has.values()), axis=0)
    in_base = has[base] if base is not None else np.zeros_like(owners, dtype=bool)
    maps = {}
    for model, mine in has.items():
        picks = [_pick(model, own[model], mine)]
        for donor, rows in own.items():
            given = ~mine & (in_base if donor == base else has[donor] & ~in_base)
            if donor != model and given.any():
                picks.append(_pick(donor, rows, given))
        averaged = np.flatnonzero(~mine & ~in_base & (owners > 1))
        maps[model] = RowMap(
            length=len(owners), picks=tuple(picks), averaged=averaged, owners=owners[averaged]
        )
    return maps


def _pick(model: str, rows: Index, where: NDArray[np.bool_]) -> Pick:
    target = np.flatnonzero(where)
    return Pick(model=model, source=rows[target], target=target)
