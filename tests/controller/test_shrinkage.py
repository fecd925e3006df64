"""What a search score comes to once its luck is taken off."""

from __future__ import annotations

import statistics
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.controller.sheets import searched
from evomerge.controller.shrinkage import Spread, spread
from evomerge.types import Split
from tests.controller.handmade import MadeByHand, measure, record_of, rights

COUNTS: dict[Split, int] = {"search": 8, "select": 0, "report": 1}
SPREAD = Spread(measure=measure(), candidates=200, items=100, mean=0.5, between=0.01, within=0.01)


@pytest.fixture
def made(tmp_path: Path) -> MadeByHand:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    for _ in range(5):
        made.add(rights(1, 8))  # baselines, which are no candidates
    return made


def found(made: MadeByHand) -> Spread | None:
    return spread(made.run, measure(), searched(made.run))


def test_a_score_keeps_the_share_of_its_lead_that_is_no_noise() -> None:
    assert SPREAD.shrunken(0.7) == pytest.approx(0.6)


def test_the_luck_of_200_candidates_is_2_75_standard_errors() -> None:
    told = SPREAD.optimism()
    assert told.expected == pytest.approx(0.275, abs=0.001)
    assert (told.candidates, told.items) == (200, 100)
    assert told.error == pytest.approx(0.1)


def test_noise_is_that_of_the_difference_to_the_candidates_mean(made: MadeByHand) -> None:
    """All but the last two items are as hard for one as for the other, and say nothing of noise."""
    for last in ((1.0, 0.0), (0.0, 1.0), (1.0, 0.0), (0.0, 1.0)):
        made.add((1.0, 1.0, 1.0, 0.0, 0.0, 0.0, *last))
    spread = found(made)
    assert spread is not None
    # differences: six zeros, 1/2 and -1/2; variance (1/4 + 1/4)/7, over 8 items; 4/3 as the mean is of four
    assert spread.within == pytest.approx(0.5 / 7 / 8 * 4 / 3)
    assert (spread.mean, spread.candidates, spread.items) == (0.5, 4, 8)
    assert spread.between == 0  # all score 4 of 8
    assert spread.shrunken(0.9) == 0.5


def test_dropped_candidates_count_with_their_estimates(made: MadeByHand) -> None:
    for right in (2, 4, 6):
        made.add(rights(right, 8))
    before = found(made)
    made.drop(0.125, 0.02)
    made.fail()
    after = found(made)
    assert before is not None
    assert after is not None
    assert (before.candidates, after.candidates) == (3, 4)
    assert after.mean == pytest.approx((0.25 + 0.5 + 0.75 + 0.125) / 4)
    assert after.between == pytest.approx(statistics.variance([0.25, 0.5, 0.75, 0.125]) - after.within)


def test_two_candidates_say_nothing_of_how_candidates_differ(made: MadeByHand) -> None:
    made.add(rights(2, 8))
    made.add(rights(4, 8))
    assert found(made) is None


def test_there_is_no_noise_of_what_is_no_mean(made: MadeByHand) -> None:
    for right in (2, 4, 6):
        made.add(rights(right, 8))
    other = replace(measure(), aggregate="other")
    assert spread(made.run, other, searched(made.run)) is None
