"""The interval of one model's own score."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from evomerge.comparison.items import aggregate
from evomerge.comparison.own import own_interval
from evomerge.types import ItemScores, Measure

ACC = Measure(name="t", task="t", metric="acc", filter="none", higher_is_better=True)
BITS = replace(ACC, metric="bits_per_byte", higher_is_better=False, aggregate="bits_per_byte")


def items(*scores: float, weights: tuple[float, ...] | None = None) -> ItemScores:
    names = tuple(f"i{k}" for k in range(len(scores)))
    return ItemScores(task="t", metric="acc", filter="none", items=names, scores=scores, weights=weights)


@pytest.mark.parametrize("right", [0, 1, 8, 10])
def test_of_right_and_wrong_answers_it_is_wilsons(right: int) -> None:
    found = own_interval(ACC, items(*[1.0] * right, *[0.0] * (10 - right)))
    theirs = stats.binomtest(right, 10).proportion_ci(method="wilson")
    assert found == pytest.approx((theirs.low, theirs.high), abs=1e-12)


def test_of_other_means_it_is_by_t() -> None:
    scores = (0.2, 0.9, 0.4, 0.7, 0.1)
    found = own_interval(ACC, items(*scores))
    theirs = stats.t.interval(0.95, 4, loc=np.mean(scores), scale=stats.sem(scores))
    assert found == pytest.approx(theirs)


def test_items_about_the_same_text_count_once() -> None:
    scores = [1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 0.0, 0.0]
    alone, together = (
        own_interval(ACC, items(*scores)),
        own_interval(ACC, items(*scores), clusters={f"i{k}": f"text {k // 2}" for k in range(8)}),
    )
    assert alone is not None
    assert together is not None
    assert together[1] - together[0] > 1.4 * (alone[1] - alone[0])


def test_of_bits_it_lies_around_the_score_in_bits() -> None:
    told = items(-4.0, -6.0, -3.0, -9.0, weights=(4.0, 5.0, 4.0, 6.0))
    found = own_interval(BITS, told)
    assert found is not None
    assert sum(found) / 2 == pytest.approx(aggregate(BITS, told))
    rate = sum(told.scores) / 19
    values = [
        -(s - rate * w) / math.log(2) / (19 / 4) for s, w in zip(told.scores, (4, 5, 4, 6), strict=True)
    ]
    half = stats.t.ppf(0.975, 3) * np.std(values, ddof=1) / 2
    assert (found[1] - found[0]) / 2 == pytest.approx(half)


def test_there_is_none_of_metrics_that_are_no_means_or_of_one_item() -> None:
    assert own_interval(replace(ACC, aggregate="other"), items(1.0, 0.0, 1.0)) is None
    assert own_interval(ACC, items(1.0)) is None
