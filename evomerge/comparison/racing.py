"""Races: who may be given up before all items are scored, and who of a first few is worth them.

A candidate is looked at after some items, then after some more; every look is one more chance to give up by
mistake somebody who is as good, so each takes an equal share of the risk (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from evomerge.comparison.paired import compare

_SHARE = 3
_EXTRA = 0.5


def surely_outside(scores: Sequence[float], *, low: float | None, high: float | None, alpha: float) -> bool:
    """Return whether the mean of such `scores` lies confidently below `low` or above `high`."""
    found = compare(scores, [0.0] * len(scores))
    if found is None:
        return False
    below = low is not None and found.upper(alpha) < low
    above = high is not None and found.lower(alpha) > high
    return below or above


def rung_looks(ends: Sequence[int], first: int = 50) -> tuple[int, ...]:
    """Return after which looks candidates halve one another: `first` items, three times that and so on.

    The last look is none of them: who gets there has all items.
    """
    rungs: list[int] = []
    wanted = first
    for look, end in enumerate(ends[:-1]):
        if end >= wanted:
            rungs.append(look)
            wanted = end * _SHARE
    return tuple(rungs)


@dataclass
class Halving:
    """Successive halving among the first `size` candidates, who need no rival to be compared with.

    A third of them goes on from each rung, and up to half as many again who cannot be told from the last of
    those. Li et al. 2018, https://jmlr.org/papers/v18/16-558.html. Candidates that come late hold the
    others up, not the workers: these go on with candidates behind the first `size`.
    """

    size: int
    rungs: tuple[int, ...]
    _rung: int = 0
    _expected: int = field(init=False)
    _waiting: dict[int, tuple[float, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._expected = self.size if self.rungs else 0

    @property
    def over(self) -> bool:
        """Whether nobody waits or will."""
        return self._rung >= len(self.rungs) or self._expected == 0

    @property
    def rung(self) -> int:
        """How many rungs they have left behind."""
        return self._rung

    def resume(self, rung: int, *, expected: int) -> None:
        """Stand where an earlier one stood: so many rungs up, and so many members still expected."""
        self._rung, self._expected = rung, expected

    @property
    def look(self) -> int:
        """The look after which members wait now. Raises `IndexError` where it is over."""
        return self.rungs[self._rung]

    @property
    def waiting(self) -> tuple[int, ...]:
        """The candidates that wait at the rung."""
        return tuple(self._waiting)

    def halts(self, look: int) -> bool:
        """Return whether a member waits for the others after `look`."""
        return not self.over and look == self.look

    def arrive(self, number: int, scores: Sequence[float]) -> None:
        """Let a member wait with its oriented scores so far."""
        self._waiting[number] = tuple(scores)

    def leave(self) -> None:
        """Expect one member less: it failed, was given up, or had its scores from elsewhere."""
        self._expected -= 1

    @property
    def complete(self) -> bool:
        """Whether everybody expected has arrived."""
        return bool(self._waiting) and len(self._waiting) >= self._expected

    def decide(self, tied: Callable[[int, int], bool]) -> tuple[list[int], list[int]]:
        """Return who goes on and who does not, and move to the next rung.

        `tied(a, b)` says whether `a` cannot be told from `b`.
        """
        keep = max(1, math.ceil(self.size / _SHARE ** (self._rung + 1)))
        ranked = ranking(self._waiting)
        kept, others = ranked[:keep], ranked[keep:]
        most = math.floor(keep * _EXTRA)
        extra = [each for each in others if kept and tied(each, kept[-1])][:most]
        dropped = [each for each in others if each not in extra]
        self._waiting = {}
        self._rung += 1
        self._expected = len(kept) + len(extra)
        return [*kept, *extra], dropped


def ranking(scores: dict[int, tuple[float, ...]]) -> list[int]:
    """Return the candidates, best first: by layers of the Pareto front, in a layer by their mean rank."""
    left = dict(scores)
    found: list[int] = []
    ranks = _mean_ranks(scores)
    while left:
        layer = [a for a in left if not any(_dominates(other, left[a]) for other in left.values())]
        found += sorted(layer, key=lambda number: (ranks[number], number))
        for number in layer:
            del left[number]
    return found


def _mean_ranks(scores: dict[int, tuple[float, ...]]) -> dict[int, float]:
    columns = zip(*scores.values(), strict=True)
    places = [[sum(other > value for other in column) for value in column] for column in columns]
    return {number: math.fsum(row) for number, row in zip(scores, zip(*places, strict=True), strict=True)}


def _dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)
