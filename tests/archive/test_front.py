"""The Pareto archive: nothing in it is beaten, whatever the order of arrival."""

from collections.abc import Sequence

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from evomerge.archive.front import Member, ParetoArchive

coarse = st.integers(min_value=0, max_value=5).map(float)
"""Few values, so that ties and domination are common."""
points2 = st.lists(st.tuples(coarse, coarse), max_size=12)
points3 = st.lists(st.tuples(coarse, coarse, coarse), max_size=10)


def members(points: Sequence[tuple[float, ...]]) -> list[Member]:
    return [Member(trial=i, scores=scores) for i, scores in enumerate(points)]


def archive_of(found: Sequence[Member]) -> ParetoArchive:
    archive = ParetoArchive()
    for member in found:
        archive = archive.add(member)
    return archive


def archive(*points: tuple[float, ...]) -> ParetoArchive:
    return archive_of(members(points))


def dominates(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether `one` is as good as `other` everywhere and better somewhere."""
    pairs = list(zip(one, other, strict=True))
    return all(a >= b for a, b in pairs) and any(a > b for a, b in pairs)


def test_scores_of_different_length_are_not_compared() -> None:
    with pytest.raises(ValueError, match="shapes"):
        archive((1.0, 2.0), (1.0, 2.0, 3.0))


@given(points3)
def test_no_member_dominates_another(points: list[tuple[float, ...]]) -> None:
    front = archive(*points).front
    assert not any(dominates(a.scores, b.scores) for a in front for b in front)


@given(points3)
def test_what_is_not_on_the_front_is_dominated_by_it(points: list[tuple[float, ...]]) -> None:
    front = archive(*points).front
    for member in members(points):
        beaten = any(dominates(other.scores, member.scores) for other in front)
        assert beaten != (member in front)


@given(points3.flatmap(lambda points: st.tuples(st.just(points), st.permutations(members(points)))))
def test_the_order_of_arrival_does_not_matter(
    case: tuple[list[tuple[float, ...]], list[Member]],
) -> None:
    points, shuffled = case
    assert set(archive_of(shuffled).front) == set(archive(*points).front)


def test_equal_scores_all_stay() -> None:
    found = archive((1.0, 2.0), (1.0, 2.0), (2.0, 1.0), (1.0, 2.0))
    assert [member.trial for member in found.front] == [0, 1, 2, 3]


def test_a_dominated_newcomer_changes_nothing() -> None:
    before = archive((1.0, 1.0))
    assert before.add(Member(trial=1, scores=(1.0, 0.0))) is before


def test_adding_returns_a_new_archive() -> None:
    before = archive((1.0, 1.0))
    after = before.add(Member(trial=1, scores=(2.0, 2.0)))
    assert [member.trial for member in before.front] == [0]
    assert [member.trial for member in after.front] == [1]


def area(points: Sequence[tuple[float, ...]], reference: tuple[float, float]) -> float:
    """Count the unit squares above `reference` that lie under some point: scores are whole numbers."""
    left, bottom = (int(each) for each in reference)
    squares = ((x, y) for x in range(left, 6) for y in range(bottom, 6))
    return float(sum(any(a > x and b > y for a, b in points) for x, y in squares))


@given(points2, st.tuples(coarse, coarse))
@settings(deadline=None)
def test_hypervolume_is_the_dominated_area(
    points: list[tuple[float, float]], reference: tuple[float, float]
) -> None:
    assert archive(*points).hypervolume(reference) == pytest.approx(area(points, reference))


def test_hypervolume_of_one_objective_is_a_length() -> None:
    assert archive((0.75,)).hypervolume((0.5,)) == pytest.approx(0.25)


def test_hypervolume_of_an_empty_archive_is_zero() -> None:
    assert ParetoArchive().hypervolume((0.0, 0.0)) == 0.0


def test_the_knee_is_fair_in_all() -> None:
    found = archive((0.0, 10.0), (8.0, 8.0), (10.0, 0.0), (9.9, 0.5))
    assert found.knee().trial == 1


def test_the_knee_does_not_depend_on_the_scale_of_an_objective() -> None:
    points = [(0.0, 1.0), (0.6, 0.7), (0.9, 0.2), (1.0, 0.0)]
    stretched = [(1000 * a - 7, b / 50) for a, b in points]
    assert archive(*points).knee().trial == archive(*stretched).knee().trial == 1


def test_the_knee_of_one_member_is_that_member() -> None:
    assert archive((1.0, 1.0)).knee().trial == 0


def test_an_empty_archive_has_no_knee() -> None:
    with pytest.raises(ValueError):
        ParetoArchive().knee()
