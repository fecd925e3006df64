"""TIES' second and third step: one sign per weight, then what agrees with it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge.parameters import Choice, Gene

if TYPE_CHECKING:
    from torch import Tensor

VOTE_WEIGHT = Gene(
    low=0.0, high=1.5, default=1.0, meaning="how much of each task vector", also={"weights": float}
)
SIGN_METHOD = Choice(
    options=("total", "count"),
    default="total",
    meaning="who votes: magnitudes or sources",
    also={"frequency": "count", "mass": "total", "sum": "total"},
    words=("consensus_method", "majority_sign_method"),
)


def elect(deltas: Tensor, sign_method: str) -> Tensor:
    """Return the elected sign `(*s)` of `deltas (n, *s)` in {−1, 0, +1}; 0 is an undecided vote.

    `total` lets magnitudes vote, `count` lets each source vote once.
    """
    votes = deltas if sign_method == "total" else deltas.sign()
    return total(votes).sign_()


def total(rows: Tensor) -> Tensor:
    """Return the sum `(*s)` of `rows (n, *s)`, one after another: faster than torch adds a few rows."""
    added = rows[0].clone()
    for row in rows[1:]:
        added.add_(row)
    return added


def agreeing(deltas: Tensor, sign: Tensor) -> Tensor:
    """Return the mask `(n, *s)`, 1 or 0, of entries whose sign is the elected one; zeros never agree.

    In numbers of the entries' own dtype: torch multiplies by booleans ten times as slowly.
    """
    aligned = deltas * sign
    return aligned.gt_(0)


def decided(sign: Tensor, undecided: float) -> Tensor:
    """Return `sign (*s)` with `undecided` for zeros, written over it."""
    return sign.add_(is_zero(sign), alpha=undecided) if undecided else sign


def is_zero(numbers: Tensor) -> Tensor:
    """Return the mask of zeros, 1 or 0, in the dtype of the numbers."""
    zeros: Tensor = numbers.clone().eq_(0)
    return zeros


def strongest(deltas: Tensor, agree: Tensor, sign: Tensor) -> Tensor:
    """Return the agreeing entry of greatest magnitude, `(*s)`."""
    return (deltas.abs() * agree).amax(0) * sign
