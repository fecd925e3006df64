"""How surely a candidate loses to rivals that have all their scores, to hundreds of them at once.

A front of several objectives has so many members, and what siblings say of each changes with every candidate
that is scored. One by one that takes a millisecond each, in rows together some hundredths of one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from evomerge.comparison.ease import Ease, Matrix, Vector, checked, foreseen, foreseen_rows, spread
from evomerge.comparison.paired import Difference

Flags = NDArray[np.bool_]  # (R,)
Places = NDArray[np.intp]  # (r,)

_FEWEST = 4


@dataclass(frozen=True, kw_only=True)
class Leads:
    """By how much a candidate will be better than each of `r` rivals; nothing tells yet where not `known`."""

    means: Vector  # (r,)
    deviations: Vector  # (r,)
    known: Flags  # (r,)
    count: int

    def below(self, alpha: float, margin: float) -> Flags:
        """Return which are confidently less than `margin`, as `Difference.below` says of each."""
        if not self.known.any():
            return self.known
        half_width = float(stdtrit(self._df, 1 - alpha)) * (self.deviations / np.sqrt(self.count))
        return np.asarray(self.known & (self.means + half_width < margin))

    def only(self, some: Flags) -> Leads:
        """Return some of them."""
        return Leads(
            means=self.means[some],
            deviations=self.deviations[some],
            known=self.known[some],
            count=self.count,
        )

    def at(self, place: int) -> Difference | None:
        """Return one of them."""
        if not self.known[place]:
            return None
        mean, deviation = float(self.means[place]), float(self.deviations[place])
        return Difference(mean=mean, deviation=deviation, count=self.count, df=self._df)

    @property
    def _df(self) -> int:
        return self.count - 3


class Rivals:
    """The scores `(R, N)` of R rivals on all N items, and what the others' say of them."""

    def __init__(self, scores: Sequence[Sequence[float] | Vector]) -> None:
        self._scores: Matrix = np.asarray(scores, dtype=np.float64)
        self._foreseen = np.empty_like(self._scores)
        self._fresh: Flags = np.zeros(len(scores), dtype=bool)
        self._ease: Ease | None = None

    def leads(self, prefix_scores: Sequence[float] | Vector, ease: Ease, among: Places) -> Leads:
        """Return by how much a candidate will be better than the rivals `among` all, on all items.

        A rival has all its scores, and items that it passes against the odds its siblings often pass, too:
        where both miss their predictions together, as far as they do, that is taken out (a regression
        estimator with the rival's misses, known for all items, as its second auxiliary). As all `N` items
        are asked about and no others, the variance has the factor 1 − n/N. There is nothing to tell two apart
        by of fewer than four items, or equal scores.
        """
        seen = checked(prefix_scores, ease)
        count, (_, items) = len(seen), self._scores.shape
        rivals = self._scores[among]
        known = (rivals[:, :count] != seen).any(axis=1) & (count >= _FEWEST)
        if not known.any():
            return Leads(
                means=np.zeros(len(among)), deviations=np.zeros(len(among)), known=known, count=count
            )
        own, theirs = foreseen(seen, ease), rivals - self._foreseen_of(among, ease)
        missed, there = seen - own[:count], np.ascontiguousarray(theirs[:, :count])
        together, most = (there * missed).sum(axis=1), (there * there).sum(axis=1)
        shared = np.clip(together / np.maximum(most, 1e-12), 0.0, 1.0)
        left = missed - shared[:, None] * there
        means = own.mean() + shared * theirs.mean(axis=1) + left.mean(axis=1) - rivals.mean(axis=1)
        variances = (1 - count / items) * spread(left) * (count - 1) / max(count - 3, 1)
        return Leads(means=means, deviations=np.sqrt(variances), known=known, count=count)

    def _foreseen_of(self, among: Places, ease: Ease) -> Matrix:
        """Return what is foreseen of some rivals, fitted anew where another candidate was scored since."""
        if ease is not self._ease:
            self._ease, self._fresh[:] = ease, False
        stale = among[~self._fresh[among]]
        if len(stale):
            self._foreseen[stale] = foreseen_rows(self._scores[stale], ease)
            self._fresh[stale] = True
        return self._foreseen[among]


def lead(
    prefix_scores: Sequence[float] | Vector, rival_scores: Sequence[float] | Vector, ease: Ease
) -> Difference | None:
    """Return by how much a candidate will be better than one rival; None where nothing tells yet."""
    return Rivals([rival_scores]).leads(prefix_scores, ease, np.arange(1)).at(0)
