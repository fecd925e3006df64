"""Candidates that a search has scored before in other words, and whose scores may stand for theirs.

The same recipe or the same weights have the same scores. A model that only says nearly the same must first
agree with the other on a probe of the items. Some of those that inherited are scored all the same, lest a
wrong equality corrupt the search unseen. Where decoding samples, there are no scores to inherit.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from evomerge.comparison.divergence import between, distributions
from evomerge.seeds import derive
from evomerge.types import Identified, ItemScores

_log = logging.getLogger(__name__)

NEAR = 3.0
"""Fingerprints up to so many times the noise apart are near."""
LEAST_PROBE = 0.25
"""Share of the items that two models must have answered before one inherits the rest."""
LEAST_AGREEING = 0.99
AUDITED = 0.02
"""Share of those inheriting that are scored nevertheless."""
ALLOWED_WRONG = 1 / 50
"""Share of those audited whose scores may differ from what they inherited."""
TOLERANCE = 0.01
"""What a score may differ by: absolutely, or of a score above 1 relatively."""
_ROUNDING = 1e-12
"""Of distances between fingerprints."""
_SAME_SCORE = 0.01
"""What the score of an item may differ by, relatively, and be the same; of 0 and 1 nothing."""


@dataclass(frozen=True, kw_only=True)
class Same:
    """An earlier trial that built the same: the same recipe in other words, or the same weights."""

    trial: int
    how: Literal["recipe", "weights"]


@dataclass(frozen=True, kw_only=True)
class Alike:
    """An earlier trial whose fingerprint is as near as one model's to itself."""

    trial: int
    distance: float


Hit: TypeAlias = Same | Alike


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """On how many items two models were compared, on how many they agree, and how many there are.

    Of several measures, the least share each.
    """

    probed: float
    agreeing: float

    @property
    def enough(self) -> bool:
        """Whether the probe was large enough to tell."""
        return self.probed >= LEAST_PROBE

    @property
    def holds(self) -> bool:
        """Whether what was probed agrees."""
        return self.agreeing >= LEAST_AGREEING


class Equivalents:
    """The trials that scores may be inherited from, by recipe, weights and fingerprint."""

    def __init__(self, *, seed: int) -> None:
        self._seed = seed
        self._keys: dict[str, int] = {}
        self._digests: dict[tuple[str, str], int] = {}
        self._prints: dict[tuple[str, str], _Prints] = {}
        self._audits: list[bool] = []
        self.near = True
        """Whether near models count; a search whose audits fail goes on without."""

    def add(self, trial: int, key: str, identified: Identified | None = None) -> None:
        """Let later candidates inherit from a trial that was itself scored on all items.

        Also call it for a trial that inherited from this one as the `Same`, with that trial's key; never for
        one that failed, was dropped, or inherited from one `Alike`: errors would add up.
        """
        self._keys.setdefault(key, trial)
        if identified is None:
            return
        self._digests.setdefault((identified.device, identified.digest), trial)
        if identified.basis:
            place = (identified.device, identified.basis)
            self._prints.setdefault(place, _Prints()).add(trial, identified)

    def by_recipe(self, key: str) -> Same | None:
        """Return the trial that was scored and builds the same by its recipe."""
        trial = self._keys.get(key)
        return None if trial is None else Same(trial=trial, how="recipe")

    def by_model(self, identified: Identified) -> Hit | None:
        """Return the trial that was scored on this device and has the same weights, or else is alike."""
        trial = self._digests.get((identified.device, identified.digest))
        if trial is not None:
            return Same(trial=trial, how="weights")
        prints = self._prints.get((identified.device, identified.basis))
        return prints.nearest(identified) if prints and self.near and identified.basis else None

    def audited(self, trial: int) -> bool:
        """Return whether a trial that could inherit is to be scored itself: one in fifty, by its number."""
        return derive(self._seed, "audit", trial) < AUDITED * 2**63

    def audit(self, trial: int, hit: Hit, inherited: Mapping[str, float], found: Mapping[str, float]) -> None:
        """Count whether an audited trial scored what it would have inherited.

        More than one in fifty that did not is a warning, and from then on near models count no more.
        """
        wrong = [name for name, score in found.items() if differ(score, inherited[name])]
        self._audits.append(bool(wrong))
        if not wrong:
            return
        _log.info("trial %d is not what trial %d is, by %s", trial, hit.trial, ", ".join(wrong))
        if self.near and sum(self._audits) > ALLOWED_WRONG * len(self._audits):
            self.near = False
            _log.warning(
                "%d of %d candidates that seemed equal to earlier ones and were scored all the same differ "
                "(trial %d, %s trial %d); from now on only equal recipes and weights count as the same",
                sum(self._audits), len(self._audits), trial, _SAID[type(hit)], hit.trial,
            )  # fmt: skip


_SAID: Mapping[type, str] = {Same: "the same as", Alike: "much like"}


def agreement(ours: Sequence[ItemScores], theirs: Sequence[ItemScores]) -> Agreement:
    """Return how far `ours`, on some of the items, agree with `theirs`, on all of them."""
    known = {_measure(each): each for each in theirs}
    probed, agreeing = 1.0, 1.0
    for each in ours:
        other = known[_measure(each)]
        scores = dict(zip(other.items, other.scores, strict=True))
        pairs = [
            (score, scores[item])
            for item, score in zip(each.items, each.scores, strict=True)
            if item in scores
        ]
        same = sum(_same_score(*pair) for pair in pairs)
        probed = min(probed, len(pairs) / max(1, len(other.items)))
        agreeing = min(agreeing, same / len(pairs) if pairs else 0.0)
    return Agreement(probed=probed if ours else 0.0, agreeing=agreeing)


def _measure(items: ItemScores) -> tuple[str, str, str]:
    return items.task, items.metric, items.filter


def _same_score(one: float, other: float) -> bool:
    """Return whether an item's scores are the same; those that mean nothing on one item always are."""
    return math.isclose(one, other, rel_tol=_SAME_SCORE) or (math.isnan(one) and math.isnan(other))


def differ(one: float, other: float) -> bool:
    """Return whether two scores of what ought to be one model differ by more than is tolerated."""
    return abs(one - other) > TOLERANCE * max(1.0, abs(one), abs(other)) + 1e-9  # of floats


class _Prints:
    """Fingerprints that are comparable, as distributions `(prompts, tokens)`.

    A bound keeps most from being compared: d ≥ TV² / 2 by Pinsker's inequality
    (https://en.wikipedia.org/wiki/Pinsker%27s_inequality), of each model's distance to the middle of the two,
    and no token's probability differs by more than TV.
    """

    def __init__(self) -> None:
        self._trials: list[int] = []
        self._noise: list[float] = []
        self._noisiest = 0.0
        self._rows: list[NDArray[np.float64]] = []
        self._first: NDArray[np.float64] = np.empty((0, 0))  # (n, prompts) of the first token; some more rows

    def add(self, trial: int, identified: Identified) -> None:
        row = distributions(identified.fingerprint)
        if len(self._rows) == len(self._first):
            self._first = np.resize(self._first, (max(64, 2 * len(self._first)), len(row)))
        self._first[len(self._rows)] = row[:, 0]
        self._trials.append(trial)
        self._noise.append(identified.noise)
        self._noisiest = max(self._noisiest, identified.noise)
        self._rows.append(row)

    def nearest(self, identified: Identified) -> Alike | None:
        """Return the nearest trial, of equally near ones the first, if it is near enough."""
        row = distributions(identified.fingerprint)
        least = ((self._first[: len(self._rows)] - row[:, 0]) ** 2).mean(axis=1) / 2
        farthest = NEAR * max(identified.noise, self._noisiest)
        maybe = np.flatnonzero(least <= farthest + _ROUNDING)
        if not len(maybe):
            return None
        apart = between(row, np.stack([self._rows[i] for i in maybe]))
        first = int(apart.argmin())
        number = int(maybe[first])
        if apart[first] > NEAR * max(identified.noise, self._noise[number]):
            return None
        return Alike(trial=self._trials[number], distance=float(apart[first]))
