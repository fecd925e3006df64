"""The arithmetic of a gain: its interval, its direction, and when it is proven."""

import math
from dataclasses import replace

import pytest

from evomerge.controller.closing import Gain, _interval
from evomerge.report.closing import gain_sentence
from evomerge.types import Measure

UP = Measure(name="acc", task="t", metric="acc", filter="none", higher_is_better=True)
DOWN = Measure(name="ppl", task="t", metric="ppl", filter="none", higher_is_better=False)


def gain(low: float | None, high: float | None) -> Gain:
    return Gain(objective="acc", trial=7, parent=1, over="parent math", gain=0.1, low=low, high=high, items=4)


def test_the_interval_is_that_of_the_paired_mean() -> None:
    ours, theirs = (1.0, 1.0, 0.0, 1.0), (0.0, 1.0, 0.0, 0.0)
    # differences 1 0 0 1: mean 1/2, variance (4 * 1/4) / 3 = 1/3, standard error sqrt(1/12)
    low, high = _interval(ours, theirs, 0.5, UP)
    half = 3.182446305284263 * math.sqrt(1 / 12)  # Student's t with three degrees of freedom
    assert low == pytest.approx(0.5 - half)
    assert high == pytest.approx(0.5 + half)


def test_what_both_share_does_not_widen_the_interval() -> None:
    hard = [0.0, 9.0, -4.0, 100.0]
    ours = [x + y for x, y in zip(hard, (1.0, 1.0, 0.0, 1.0), strict=True)]
    apart = _interval((1.0, 1.0, 0.0, 1.0), (0.0, 0.0, 0.0, 0.0), 0.75, UP)
    assert _interval(ours, hard, 0.75, UP) == pytest.approx(apart)


@pytest.mark.parametrize(("items", "proven"), [(2, False), (10, True)])
def test_a_few_items_that_all_agree_prove_nothing_yet(items: int, proven: bool) -> None:
    low, high = _interval((1.0,) * items, (0.0,) * items, 1.0, UP)
    assert gain(low, high).proven is proven


def test_lower_is_better_turns_the_interval_round() -> None:
    ours, theirs = (2.0, 3.0, 1.0), (3.0, 3.0, 3.0)
    assert _interval(ours, theirs, 1.0, DOWN) == pytest.approx(_interval(theirs, ours, 1.0, UP))
    low, high = _interval(ours, theirs, 1.0, DOWN)
    assert low is not None
    assert high is not None
    assert low < 1.0 < high


def test_more_of_the_same_items_narrow_the_interval() -> None:
    ours, theirs = (1.0, 1.0, 0.0, 1.0), (0.0, 1.0, 0.0, 0.0)
    widths = []
    for times in (1, 4, 16):
        low, high = _interval(ours * times, theirs * times, 0.5, UP)
        assert low is not None
        assert high is not None
        widths.append(high - low)
    assert widths[0] > 1.9 * widths[1] > 3.6 * widths[2]


@pytest.mark.parametrize(
    ("ours", "theirs", "difference"),
    [
        ((1.0,), (0.0,), 1.0),  # one item says nothing of the spread
        ((), (), 0.0),
        ((1.0, 0.0), (0.0, 0.0), 0.25),  # the score is no mean over items
        ((math.nan, 1.0), (0.0, 0.0), 0.5),  # nor has every item a score
    ],
)
def test_there_is_no_interval_where_the_score_is_no_mean(
    ours: tuple[float, ...], theirs: tuple[float, ...], difference: float
) -> None:
    assert _interval(ours, theirs, difference, UP) == (None, None)


def test_items_of_two_models_must_pair_up() -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        _interval((1.0, 0.0), (1.0,), 0.0, UP)


@pytest.mark.parametrize(
    ("low", "high", "proven"),
    [(0.01, 0.2, True), (0.0, 0.2, False), (-0.1, 0.2, False), (-0.3, -0.1, False), (None, None, False)],
)
def test_a_gain_is_proven_where_its_interval_lies_above_zero(
    low: float | None, high: float | None, proven: bool
) -> None:
    assert gain(low, high).proven is proven


def test_a_parent_that_is_best_is_not_compared_with_itself() -> None:
    none = replace(gain(None, None), trial=1)
    assert gain_sentence(none) == "acc: no candidate did better than the parent math on the search items"


def test_the_sentence_says_how_much_over_whom_and_how_sure() -> None:
    assert gain_sentence(gain(-0.05, 0.25)) == (
        "acc: trial 7 against the parent math: +0.100 [-0.050, +0.250] on 4 report items, not proven"
    )
