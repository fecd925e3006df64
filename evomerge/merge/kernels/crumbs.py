"""Model Breadcrumbs' mask: of each task vector neither the largest entries nor the small ones.

Davari & Belilovsky 2023, https://arxiv.org/abs/2312.06795.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from evomerge.merge.kernels.ranking import ranks, rows_of
from evomerge.merge.kernels.trimming import Cut, Trimmer, kept_count, trim, trim_all
from evomerge.merge.method import Vectors, Whole
from evomerge.parameters import Choice, Gene

if TYPE_CHECKING:
    from torch import Tensor

CRUMBS = Gene(
    low=0.05,
    high=0.9,
    default=0.9,
    meaning="share of each task vector kept, the largest that were not removed",
    least=0.0,
    most=1.0,
    also={"top_k_keep": float},
    under={"official": 0.15},
)
OUTLIERS = Gene(
    low=0.001,
    high=0.05,
    default=0.01,
    meaning="share of each task vector removed as outliers, largest first",
    least=0.0,
    most=1.0,
    also={"top_k_remove": float},
)
CRUMBS_SCOPE = Choice(
    options=("tensor", "last_dim"),
    default="tensor",
    meaning="where shares are counted: in each tensor as mergekit does, or in each row as the authors do",
    under={"official": "last_dim"},
)
REMOVE_FIRST = Choice(
    options=(True, False),
    default=True,
    meaning="remove outliers before counting what is kept, not among it",
)


def crumbs(
    delta: Tensor, density: float, gamma: float, *, scope: str = "tensor", remove_first: bool = True
) -> Tensor:
    """Return `delta (*s)` with all zero but what lies below its outliers and above its small entries.

    Entries of equal magnitude count in index order. Removing nothing removes nothing, where mergekit clears
    the whole tensor. In a tensor, exactly int(ρ·n) entries stay if outliers go first, and a density of 1
    keeps everything; in rows both shares are counted as the authors do, and a scalar stays as it is.
    """
    if scope == "last_dim":
        return _in_rows(delta, density, gamma, remove_first=remove_first) if delta.ndim else delta
    if density >= 1:
        return delta
    inner, outer = counts(delta.numel(), density, gamma, remove_first=remove_first)
    return trim(delta, outer) - trim(delta, inner)


def counts(size: int, density: float, gamma: float, *, remove_first: bool = True) -> tuple[int, int]:
    """Return how many of `size` entries, largest first, are outliers, and how many come before the small."""
    if density >= 1:
        return 0, size
    kept = kept_count(density, size)
    if not remove_first:
        return min(int(gamma * size), kept), kept
    removed = min(int(gamma * size), size - kept)
    return removed, removed + kept


def crumbs_of(
    deltas: Tensor,
    density: tuple[float, ...],
    gamma: tuple[float, ...],
    *,
    scope: str = "tensor",
    remove_first: bool = True,
) -> Tensor:
    """Return the crumbs of each of `deltas (n, *s)`."""
    kept = deltas.new_empty(deltas.shape)
    for i, (delta, keep, remove) in enumerate(zip(deltas, density, gamma, strict=True)):
        kept[i] = crumbs(delta, keep, remove, scope=scope, remove_first=remove_first)
    return kept


def cuts_of(
    whole: Whole, density: Sequence[float], gamma: Sequence[float], *, remove_first: bool = True
) -> list[tuple[Cut, Cut]]:
    """Return for each vector where its outliers end and where its small entries begin."""
    found = [
        counts(whole.size, keep, remove, remove_first=remove_first)
        for keep, remove in zip(density, gamma, strict=True)
    ]
    return [(whole.cut(i, start), whole.cut(i, end)) for i, (start, end) in enumerate(found)]


def begin_crumbs(
    whole: Whole, density: Sequence[float], gamma: Sequence[float], *, remove_first: bool = True
) -> Vectors:
    """Return what makes crumbs of consecutive blocks `(n, b)` of vectors, as counted in the whole tensor."""
    found = cuts_of(whole, density, gamma, remove_first=remove_first)
    inner, outer = ([Trimmer(cut) for cut in each] for each in zip(*found, strict=True))

    def vectors(deltas: Tensor, start: int) -> Tensor:
        del start
        return trim_all(outer, deltas).sub_(trim_all(inner, deltas))

    return vectors


def _in_rows(delta: Tensor, density: float, gamma: float, *, remove_first: bool) -> Tensor:
    """Return `delta (*s, m)` of which, in each row of m, int(m·ρ) entries below the top int(m·γ) stay.

    With outliers removed last, these come out of the int(m·ρ).
    """
    rows = rows_of(delta)
    kept, removed = (int(rows.shape[1] * share) for share in (density, gamma))
    from_top = ranks(-rows.abs())  # 0 is the largest
    end = removed + kept if remove_first else kept
    return (rows * ((from_top >= removed) & (from_top < end))).reshape(delta.shape)
