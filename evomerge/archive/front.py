"""The Pareto front: an immutable archive of what nothing else beats."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace


@dataclass(frozen=True, kw_only=True)
class Member:
    """A trial on the front; `scores` are oriented, so that higher is better in each."""

    trial: int
    scores: tuple[float, ...]


def dominates(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    """Return whether `one` is as good as `other` everywhere and better somewhere."""
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


@dataclass(frozen=True)
class ParetoArchive:
    """An immutable front. Trials with equal scores all stay: they may differ elsewhere."""

    front: tuple[Member, ...] = ()

    def add(self, new: Member) -> ParetoArchive:
        """Return the archive with `new` in it, or this one if `new` is dominated."""
        if any(dominates(old.scores, new.scores) for old in self.front):
            return self
        kept = tuple(old for old in self.front if not dominates(new.scores, old.scores))
        return replace(self, front=(*kept, new))

    def hypervolume(self, reference: Sequence[float]) -> float:
        """Return the volume the front dominates above `reference` (oriented scores)."""
        import moocore

        points = sorted({member.scores for member in self.front})
        above = [p for p in points if all(a > b for a, b in zip(p, reference, strict=True))]
        if not above:
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
