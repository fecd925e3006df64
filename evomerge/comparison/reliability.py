"""How far candidates' mean scores tell them apart, rather than their luck with the items."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike


def split_half(matrix: ArrayLike) -> float:
    """Return the reliability in [0, 1] of the row means of `matrix` (candidates, items).

    That is the share of the means' variance that other items of the kind would show again: the correlation of
    the means over odd and over even items, corrected for half the length by Spearman's and Brown's 2r/(1+r).
    It is 0 where nothing shows that the means tell candidates apart: fewer than three of them, one item, or
    all alike. Spearman 1910, https://doi.org/10.1111/j.2044-8295.1910.tb00206.x.
    """
    scores = np.asarray(matrix, dtype=np.float64)
    candidates, items = scores.shape
    if candidates < 3 or items < 2:
        return 0.0
    odd, even = (half - half.mean() for half in (scores[:, ::2].mean(axis=1), scores[:, 1::2].mean(axis=1)))
    size = float(np.sqrt((odd @ odd) * (even @ even)))
    if size == 0:
        return 0.0
    correlation = max(float(odd @ even) / size, 0.0)
    return 2 * correlation / (1 + correlation)
