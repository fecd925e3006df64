"""Problems cannot be solved without reading, and options hold the right answer once."""

import random
from collections import Counter

import pytest

from evomerge.zoo.problems import (
    HELD_OUT_PAIRS,
    OPERATIONS,
    OPTION_COUNT,
    PAIRS,
    SMALL,
    Comparison,
    Problem,
    Story,
    Words,
    draw_comparison,
    draw_story,
    held_out,
    options,
    reserved,
    solve,
)


def drawn(count: int, seed: int = 0) -> list[Problem]:
    rng = random.Random(seed)
    asks = ("now", "first", "change", "sign")
    stories = [Problem(draw_story(rng, Words(), PAIRS), rng.choice(asks)) for _ in range(count)]
    return stories + [Problem(draw_comparison(rng, Words(), 15), "which") for _ in range(count)]


def test_drawing_repeats_under_one_seed() -> None:
    assert drawn(50) == drawn(50)
    assert drawn(50) != drawn(50, seed=1)


@pytest.mark.parametrize(
    ("kind", "ask", "right"),
    [
        *(("gain", "now", "13"), ("lose", "now", "7"), ("times", "now", "30")),
        *(("gain", "first", "10"), ("gain", "change", "3")),
        *(("gain", "sign", "+"), ("lose", "sign", "-"), ("times", "sign", "*")),
    ],
)
def test_stories_are_solved(kind: str, ask: str, right: str) -> None:
    assert solve(Problem(Story(kind=kind, x=10, y=3, name=0, noun=0, verb=0), ask)) == right


def test_comparisons_are_solved() -> None:
    numbers, names = (4, 9, 2), (0, 1, 2)
    assert solve(Problem(Comparison(kind="most", numbers=numbers, names=names, adjective=0), "which")) == "9"
    assert solve(Problem(Comparison(kind="least", numbers=numbers, names=names, adjective=0), "which")) == "2"


def test_options_are_six_different_answers_with_the_right_one() -> None:
    rng = random.Random(0)
    for problem in drawn(1500):
        offered = options(problem, rng)
        assert len(offered) == len(set(offered)) == OPTION_COUNT
        assert offered.count(solve(problem)) == 1


def test_options_hold_what_every_other_operation_gives() -> None:
    rng = random.Random(0)
    for problem in drawn(300):
        record = problem.record
        if isinstance(record, Story) and problem.ask == "now":
            results = {str(operation(record.x, record.y)) for operation in OPERATIONS.values()}
            assert results <= set(options(problem, rng))


def test_the_right_answer_has_no_favourite_place() -> None:
    rng = random.Random(0)
    places = Counter(options(problem, rng).index(solve(problem)) for problem in drawn(1500))
    assert max(places.values()) < 1.2 * 3000 / OPTION_COUNT


def test_numbers_do_not_tell_the_operation() -> None:
    rng = random.Random(0)
    stories = [draw_story(rng, Words(), PAIRS) for _ in range(20_000)]
    by_pair = Counter((s.x, s.y, s.kind) for s in stories)
    guessed = sum(max(by_pair[x, y, kind] for kind in OPERATIONS) for x, y in PAIRS)
    assert guessed / len(stories) < 0.40  # a third, and the luck of choosing the largest of three


def test_held_out_pairs_are_an_eighteenth_of_the_large_ones() -> None:
    large = [pair for pair in PAIRS if pair[0] > SMALL]
    assert set(HELD_OUT_PAIRS) <= set(large)
    assert 0.05 < len(HELD_OUT_PAIRS) / len(large) < 0.10


def test_held_out_is_reserved_wording_or_held_out_operands() -> None:
    stories = [p.record for p in drawn(2000) if isinstance(p.record, Story)]
    assert 0.09 < sum(map(reserved, stories)) / len(stories) < 0.16
    for story in stories:
        assert held_out(story) == (reserved(story) or (story.x, story.y) in HELD_OUT_PAIRS)
