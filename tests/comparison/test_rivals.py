"""Many rivals at once are what they are one by one."""

import math

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.comparison.ease import Ease
from evomerge.comparison.estimate import greg
from evomerge.comparison.paired import Difference
from evomerge.comparison.rivals import Rivals, lead

Vector = NDArray[np.float64]
ITEMS, RIVALS = 60, 12


class Siblings:
    """Candidates that pass items at random, more often the easy ones; scores are whole unless `soft`."""

    def __init__(self, *, soft: bool) -> None:
        self._soft = soft
        self._rng = np.random.default_rng(3)
        self._ease = self._rng.normal(size=ITEMS)

    def one(self) -> Vector:
        chance = 1 / (1 + np.exp(-(2 * self._ease + self._rng.normal())))
        return chance if self._soft else (self._rng.random(ITEMS) < chance).astype(float)


def of(siblings: Siblings, count: int) -> Ease:
    ease = Ease.unknown(ITEMS)
    for _ in range(count):
        ease = ease.add(siblings.one())
    return ease


def one_by_one(seen: Vector, rival: Vector, ease: Ease) -> Difference | None:
    """Return a lead as it was written down first, from two estimates."""
    count = len(seen)
    if count < 4 or np.array_equal(seen, rival[:count]):
        return None
    own, others = greg(seen, ease).predicted, greg(rival, ease).predicted
    missed, theirs = seen - own[:count], rival - others
    shared = float(missed @ theirs[:count]) / max(float(theirs[:count] @ theirs[:count]), 1e-12)
    left = missed - min(max(shared, 0.0), 1.0) * theirs[:count]
    mean = own.mean() + min(max(shared, 0.0), 1.0) * theirs.mean() + left.mean() - rival.mean()
    variance = left.var(ddof=1) if np.ptp(left) > 0 else 1 / count
    variance *= (1 - count / ITEMS) * (count - 1) / (count - 3)
    return Difference(mean=float(mean), deviation=math.sqrt(variance), count=count, df=count - 3)


@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("models", [0, 1, 9])
@pytest.mark.parametrize("count", [1, 4, 25, ITEMS])
def test_leads_are_those_over_each_rival(soft: bool, models: int, count: int) -> None:
    siblings = Siblings(soft=soft)
    ease, rivals = of(siblings, models), [siblings.one() for _ in range(RIVALS)]
    ours = siblings.one()
    rivals[3][:count] = ours[:count]  # which cannot be told apart yet
    rivals[4][:] = 1.0
    found = Rivals(rivals).leads(ours[:count], ease, np.arange(RIVALS))
    for i, rival in enumerate(rivals):
        expected, one = one_by_one(ours[:count], rival, ease), found.at(i)
        assert lead(ours[:count], rival, ease) == one  # whoever else is among the rows
        assert (expected is None) == (one is None)
        if expected is not None and one is not None:
            assert one.mean == pytest.approx(expected.mean, abs=1e-12)
            assert one.deviation == pytest.approx(expected.deviation, abs=1e-9)
            assert (one.count, one.df) == (expected.count, expected.df)


@pytest.mark.parametrize("margin", [0.0, 0.05])
def test_who_is_below_is_told_as_of_a_single_difference(margin: float) -> None:
    siblings = Siblings(soft=False)
    ease, rivals = of(siblings, 9), [siblings.one() for _ in range(RIVALS)]
    found = Rivals(rivals).leads(siblings.one()[:25], ease, np.arange(RIVALS))
    below = found.below(0.2, margin).tolist()
    assert {True, False} == set(below)
    assert below == [each.below(0.2, margin) for i in range(RIVALS) if (each := found.at(i))]
    only = found.only(found.below(0.2, margin))
    assert only.at(0) == found.at(below.index(True))
    assert len(only.means) == sum(below)


def test_rivals_are_seen_anew_once_another_was_scored() -> None:
    """Also those that were not asked about in between."""
    siblings = Siblings(soft=False)
    ease, rivals = of(siblings, 3), [siblings.one() for _ in range(RIVALS)]
    ours, table = siblings.one()[:25], Rivals(rivals)
    table.leads(ours, ease, np.arange(RIVALS))
    later = ease.add(siblings.one())
    some = table.leads(ours, later, np.array([5, 2]))
    found = table.leads(ours, later, np.arange(RIVALS))
    assert [found.at(i) for i in range(RIVALS)] == [lead(ours, rival, later) for rival in rivals]
    assert [some.at(0), some.at(1)] == [found.at(5), found.at(2)]
    assert found.at(0) != lead(ours, rivals[0], ease)


def test_more_scores_than_items_are_refused() -> None:
    with pytest.raises(ValueError, match=r"takes 1 to 2 scores, found 3"):
        Rivals([[0.0, 1.0]]).leads([1.0, 1.0, 0.0], Ease.unknown(2), np.arange(1))
