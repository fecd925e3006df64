"""The Pareto front: an immutable archive of what nothing else beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, kw_only=True)
class Member:
    """A trial on the front; `scores` are oriented, so that higher is better in each."""

    trial: int
    scores: tuple[float, ...]


@dataclass(frozen=True)
class ParetoArchive:
    """An immutable front. Trials with equal scores all stay: they may differ elsewhere."""

    front: tuple[Member, ...] = ()

    @cached_property
    def _points(self) -> NDArray[np.float64]:
        """The members' scores, a row each."""
        return np.asarray([member.scores for member in self.front], dtype=np.float64)

    def add(self, new: Member) -> ParetoArchive:
        """Return the archive with `new` in it, or this one if `new` is dominated."""
        if not self.front:
            return replace(self, front=(new,))
        points, scores = self._points, np.asarray(new.scores)
        if ((points >= scores).all(axis=1) & (points > scores).any(axis=1)).any():
            return self
        stays = np.asarray((points > scores).any(axis=1) | (points >= scores).all(axis=1))
        kept = self.front if stays.all() else tuple(compress(self.front, stays.tolist()))
        return replace(self, front=(*kept, new))

    def hypervolume(self, reference: Sequence[float]) -> float:
        """Return the volume the front dominates above `reference` (oriented scores)."""
        import moocore

        if not self.front:
            return 0.0
        points = np.unique(self._points, axis=0)
        above = points[(points > np.asarray(reference)).all(axis=1)]
        if not len(above):
            return 0.0
        return float(moocore.hypervolume(above, ref=list(reference), maximise=True))

    def knee(self) -> Member:
        """Return the member farthest from the worst corner once each objective spans 0 to 1.

        The distance is the product over objectives, so a member must be fair in all to win. Raises
        `ValueError` on an empty front.
        """
        lows, highs = (
            [pick(values) for values in zip(*(m.scores for m in self.front), strict=True)]
            for pick in (min, max)
        )

        def balance(member: Member) -> float:
            product = 1.0
            for score, low, high in zip(member.scores, lows, highs, strict=True):
                product *= 1.0 + ((score - low) / (high - low) if high > low else 0.0)
            return product

        return max(self.front, key=balance)
