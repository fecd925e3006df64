"""Races: who is given up by whom, how a first few halve one another, and how often that is a mistake."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.comparison.ease import Ease
from evomerge.comparison.paired import Difference, compare
from evomerge.comparison.racing import Halving, ranking, rung_looks, surely_outside
from evomerge.comparison.rivals import lead
from evomerge.evaluate.looks import look_ends
from evomerge.testing.siblings import Siblings

Vector = NDArray[np.float64]

ALPHA = 0.2
ITEMS = 500
ENDS = (25, 50, 100, 200, 350, 500)


def beaten(difference: Difference | None, *, alpha: float) -> bool:
    return difference is not None and difference.below(alpha)


def nobody_ties(one: int, other: int) -> bool:
    return False


@pytest.mark.parametrize("count", [2, 25, 100, 500])
@pytest.mark.parametrize("score", [0.0, 1.0, 0.25])
def test_candidates_that_never_differed_are_not_given_up(count: int, score: float) -> None:
    scores = [score] * count
    assert not beaten(compare(scores, scores), alpha=ALPHA)


# A constraint is missed where its bound lies outside what the scores can mean.


def answers(right: int, of: int) -> list[float]:
    return [1.0] * right + [0.0] * (of - right)


def test_a_bound_is_missed_where_the_whole_interval_lies_outside() -> None:
    assert surely_outside(answers(10, 100), low=0.3, high=None, alpha=0.05)
    assert not surely_outside(answers(10, 100), low=0.12, high=None, alpha=0.05)
    assert surely_outside(answers(90, 100), low=None, high=0.7, alpha=0.05)
    assert not surely_outside(answers(90, 100), low=None, high=0.88, alpha=0.05)
    assert not surely_outside(answers(50, 100), low=0.4, high=0.6, alpha=0.05)
    assert not surely_outside(answers(10, 100), low=None, high=None, alpha=0.05)


def test_one_item_misses_no_bound() -> None:
    assert not surely_outside([0.0], low=0.9, high=None, alpha=0.5)


def test_a_few_wrong_answers_do_not_show_that_none_will_be_right() -> None:
    """All of them are equal, so that their spread says nothing."""
    assert not surely_outside(answers(0, 5), low=0.3, high=None, alpha=0.05)
    assert surely_outside(answers(0, 100), low=0.3, high=None, alpha=0.05)


def test_the_risk_of_a_bound_is_at_most_alpha() -> None:
    rng = np.random.default_rng(0)
    missed = [
        surely_outside((rng.random(50) < 0.6).astype(float).tolist(), low=0.6, high=None, alpha=0.1)
        for _ in range(2000)
    ]
    assert 0.05 < np.mean(missed) < 0.125  # 2000 draws of 0.1 are within 0.02; t on 0/1 is skewed


# Successive halving.


@pytest.mark.parametrize(
    ("ends", "looks"),
    [
        (ENDS, (1, 3)),  # after 50 and 200 items
        ((25, 50, 100, 150, 500), (1, 3)),
        ((25, 50, 100), (1,)),
        ((100, 400, 500), (0, 1)),
        ((25, 50), ()),  # the last look has all items
        ((25,), ()),
    ],
)
def test_rungs_are_three_times_apart_and_never_the_last_look(
    ends: tuple[int, ...], looks: tuple[int, ...]
) -> None:
    assert rung_looks(ends) == looks


def test_a_task_of_25_items_is_scored_as_a_whole() -> None:
    ends = look_ends([25, 50, 100, 200, 350], [25])
    assert ends == (25,)
    assert Halving(size=20, rungs=rung_looks(ends)).over


def halving(size: int) -> Halving:
    return Halving(size=size, rungs=rung_looks(ENDS))


def fill(start: Halving, numbers: Sequence[int]) -> None:
    """Let members wait, of whom those of larger numbers are better."""
    for number in numbers:
        start.arrive(number, [float(number)])


def test_a_third_goes_on_from_each_rung() -> None:
    """Twenty on 50 items, seven on 150 more, three on the other 300: 2950 items, where all took 10000."""
    start = halving(20)
    fill(start, range(20))
    assert start.complete
    kept, dropped = start.decide(nobody_ties)
    assert kept == [19, 18, 17, 16, 15, 14, 13]
    assert sorted(dropped) == list(range(13))
    assert start.waiting == ()
    assert (start.look, start.over, start.complete) == (3, False, False)
    fill(start, kept)
    assert start.complete
    final, second = start.decide(nobody_ties)
    assert final == [19, 18, 17]
    assert start.over
    spent = len(dropped) * ENDS[1] + len(second) * ENDS[3] + len(final) * ENDS[-1]
    assert spent == 20 * 50 + 7 * 150 + 3 * 300


def test_ties_with_the_last_who_goes_on_add_at_most_half() -> None:
    asked: list[tuple[int, int]] = []

    def ties(one: int, other: int) -> bool:
        asked.append((one, other))
        return True

    start = halving(20)
    fill(start, range(20))
    kept, dropped = start.decide(ties)
    assert kept == [19, 18, 17, 16, 15, 14, 13, 12, 11, 10]  # 7, and 3 more
    assert sorted(dropped) == list(range(10))
    assert {other for _, other in asked} == {13}
    fill(start, kept)
    assert start.complete  # with those that tied: ten are expected
    assert len(start.decide(ties)[0]) == 4


def test_everybody_is_waited_for() -> None:
    start = halving(6)
    fill(start, range(5))
    assert not start.complete
    fill(start, [5])
    assert start.complete


def test_who_leaves_is_not_waited_for() -> None:
    """It failed, or was given up: but that is no reason to let more of the others go on."""
    start = halving(6)
    start.leave()
    fill(start, range(4))
    assert not start.complete
    start.leave()
    assert start.complete
    assert start.decide(nobody_ties)[0] == [3, 2]
    start.leave()
    fill(start, [3])
    assert start.complete
    assert start.decide(nobody_ties) == ([3], [])
    assert start.over


def test_it_is_over_when_everybody_has_left() -> None:
    start = halving(3)
    for _ in range(3):
        assert not start.over
        start.leave()
    assert start.over
    assert not start.complete
    assert not start.halts(1)


def test_members_wait_at_the_rung_they_are_at() -> None:
    start = halving(6)
    assert [look for look in range(len(ENDS)) if start.halts(look)] == [1]
    fill(start, range(6))
    start.decide(nobody_ties)
    assert [look for look in range(len(ENDS)) if start.halts(look)] == [3]


def test_fewer_than_a_third_all_go_on() -> None:
    """A budget that ends before the first few are complete."""
    start = halving(20)
    fill(start, range(5))
    assert start.decide(nobody_ties) == ([4, 3, 2, 1, 0], [])


def test_several_objectives_rank_by_layers_of_the_front_then_by_mean_rank() -> None:
    scores: dict[int, tuple[float, ...]] = {
        0: (0.9, 0.1),  # the first layer: 0, 1 and 2, of whom 1 has the best mean rank
        1: (0.8, 0.8),
        2: (0.1, 0.9),
        3: (0.7, 0.7),  # the second: 1 is better in both
        4: (0.6, 0.6),
        5: (0.6, 0.6),  # as 4, and later
    }
    assert ranking(scores) == [1, 0, 2, 3, 4, 5]
    assert ranking(dict(reversed(scores.items()))) == [1, 0, 2, 3, 4, 5]


def test_ranking_knows_nobody() -> None:
    assert ranking({}) == []


# By how much a candidate will lead.


def known(siblings: Siblings, count: int = 25) -> Ease:
    ease = Ease.unknown(siblings.views.shape[1])
    for name in range(count):
        ease = ease.add(siblings.any_merge(name))
    return ease


def rival_of(siblings: Siblings) -> Vector:
    return siblings.merge(np.full(3, 1 / 3), gain=0.3, name="rival")


def levelled(scores: Vector, rival: Vector, rng: np.random.Generator) -> Vector:
    """Return the scores with as many right as the rival has: flipped where they are one too few or many."""
    levelled = scores.copy()
    off = int(levelled.sum() - rival.sum())
    wrong = np.flatnonzero(levelled == (1.0 if off > 0 else 0.0))
    levelled[rng.permutation(wrong)[: abs(off)]] = 0.0 if off > 0 else 1.0
    return levelled


def given_up(scores: Vector, rival: Vector, ease: Ease, ends: Sequence[int] = ENDS) -> bool:
    """Return whether a candidate is given up at any look but the last."""
    return any(
        beaten(lead(scores[:end], rival, ease), alpha=ALPHA / len(ends)) for end in ends if end < len(rival)
    )


def rates(gain: float | None, *, draws: int = 400) -> tuple[float, float]:
    """Return how often candidates are given up, by `lead` and by the paired comparison of the items seen.

    They are better than the rival by `gain` log-odds; None makes their means on all items exactly equal.
    """
    led, paired = 0, 0
    for seed in range(draws // 10):
        siblings = Siblings.on(ITEMS, seed=seed)
        rng = np.random.default_rng(seed)
        ease, rival = known(siblings), rival_of(siblings)
        for name in range(10):
            weights = rng.dirichlet(np.full(3, 2.0))
            scores = siblings.merge(weights, gain=0.3 + (gain or 0.0), name=f"new {name}")
            scores = levelled(scores, rival, rng) if gain is None else scores
            led += given_up(scores, rival, ease)
            paired += any(
                beaten(compare(scores[:end].tolist(), rival[:end].tolist()), alpha=ALPHA / len(ENDS))
                for end in ENDS
                if end < ITEMS
            )
    return led / draws, paired / draws


def test_candidates_exactly_as_good_are_given_up_at_most_as_often_as_asked() -> None:
    led, _ = rates(None)
    assert 0.0 < led <= ALPHA


def test_candidates_that_are_worse_are_given_up_more_often_than_by_pairs_alone() -> None:
    led, paired = rates(-0.5)  # 3.7 points
    assert led > paired + 0.2
    assert led > 0.6


def test_a_lead_over_all_items_is_the_difference_and_certain() -> None:
    siblings = Siblings.on(200, seed=3)
    rival, scores = rival_of(siblings), siblings.any_merge("new")
    found = lead(scores, rival, known(siblings))
    assert found is not None
    assert found.mean == pytest.approx(float(scores.mean() - rival.mean()), abs=1e-12)
    assert found.standard_error == 0
    assert found.below(0.01) == (scores.mean() < rival.mean())


def test_a_lead_of_graded_scores_over_all_items_is_the_difference() -> None:
    rng = np.random.default_rng(0)
    difficulty = rng.normal(-20, 5, size=200)
    ease = Ease.unknown(200)
    for _ in range(10):
        ease = ease.add(difficulty + rng.normal(size=200))
    ours, theirs = difficulty + rng.normal(-0.5, 1, size=200), difficulty + rng.normal(size=200)
    found = lead(ours, theirs, ease)
    assert found is not None
    assert found.mean == pytest.approx(float(ours.mean() - theirs.mean()), abs=1e-12)
    part = lead(ours[:50], theirs, ease)
    assert part is not None
    assert part.below(0.05)


def test_nothing_is_said_of_who_scored_exactly_as_the_rival() -> None:
    siblings = Siblings.on(200, seed=3)
    rival, ease = rival_of(siblings), known(siblings)
    assert lead(rival[:100], rival, ease) is None
    assert lead(rival, rival, ease) is None
    assert lead(rival[:3], 1 - rival, ease) is None  # too few for anything


@pytest.mark.parametrize("models", [0, 1, 2])
@pytest.mark.parametrize("right", [0.0, 1.0])
def test_a_lead_is_finite_also_where_little_is_known(models: int, right: float) -> None:
    siblings = Siblings.on(100, seed=4)
    ease = known(siblings, models) if models else Ease.unknown(100)
    found = lead(np.full(25, right), rival_of(siblings), ease)
    assert found is not None
    assert math.isfinite(found.mean)
    assert math.isfinite(found.standard_error)
    assert found.standard_error > 0
