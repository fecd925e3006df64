"""Item scores of simulated merges of the same three parents, to try comparisons and races on.

Each item has a difficulty, mostly shared by the parents; a merge meets the average of its parents' views of
it, plus luck of its own. The defaults give what merges of siblings show on multiple-choice tasks: 59 % right,
and two of them disagreeing on 16 % of the items.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from evomerge.seeds import derive

Vector = NDArray[np.float64]

PARENTS = 3
_SPREAD = 5.5  # s.d. of an item's difficulty, in log-odds
_SHARED = 0.75  # share of its variance that all parents share
_SHIFT = 1.2  # log-odds of the average item


@dataclass(frozen=True)
class Siblings:
    """The items of one simulated task, as the parents see them."""

    seed: int
    views: NDArray[np.float64]  # (3, N) log-odds of each parent passing each item

    @classmethod
    def on(cls, items: int, *, seed: int) -> Siblings:
        """Return a task of `items` items."""
        rng = np.random.default_rng(derive(seed, "siblings"))
        shared, own = rng.normal(size=items), rng.normal(size=(PARENTS, items))
        return cls(seed, _SHIFT + _SPREAD * (np.sqrt(_SHARED) * shared + np.sqrt(1 - _SHARED) * own))

    def merge(self, weights: Vector, *, gain: float, name: str | int) -> Vector:
        """Return the scores `(N,)`, 0 or 1, of the merge by `weights (3,)`, better by `gain` log-odds.

        A gain of 0.1 is about 0.7 points. Its luck depends on the task's seed and on `name` alone.
        """
        luck = np.random.default_rng(derive(self.seed, "luck", name)).logistic(size=self.views.shape[1])
        return (luck < gain + weights @ self.views).astype(np.float64)

    def any_merge(self, name: str | int) -> Vector:
        """Return the item scores of a merge by random weights, somewhat better or worse than average."""
        rng = np.random.default_rng(derive(self.seed, "merge", name))
        weights = rng.dirichlet(np.full(PARENTS, 2.0))
        return self.merge(weights, gain=0.4 * rng.normal(), name=name)
