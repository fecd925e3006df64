"""Choosing the winner: where nothing helps, nothing is claimed."""

import math
import statistics
from collections.abc import Sequence

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.comparison.final import (
    between_variance,
    expected_optimism,
    holm,
    one_standard_error,
    shrunken,
)
from evomerge.comparison.paired import Difference, compare


def between(error: float, mean: float) -> Difference:
    return Difference(mean=mean, deviation=error * 10, count=100, df=99)


def choose(scores: Sequence[float], costs: Sequence[float], error: float | None) -> int:
    def compared(best: int, other: int) -> Difference | None:
        return None if error is None else between(error, scores[best] - scores[other])

    return one_standard_error(scores, costs, compared)


@pytest.mark.parametrize(
    ("p_values", "adjusted"),
    [
        ((), ()),
        ((0.03,), (0.03,)),
        ((0.01, 0.04, 0.03, 0.005), (0.03, 0.06, 0.06, 0.02)),
        ((0.5, 0.5, 0.9), (1.0, 1.0, 1.0)),
        ((0.02, 0.021), (0.04, 0.04)),  # in the order of the p-values, never smaller
    ],
)
def test_holms_adjusted_p_values(p_values: tuple[float, ...], adjusted: tuple[float, ...]) -> None:
    assert holm(p_values) == pytest.approx(adjusted)


def test_holm_errs_anywhere_at_most_alpha() -> None:
    """With two of five effects real, testing each of the three others at 5 % would err in 14 % of runs."""
    rng = np.random.default_rng(1)
    p_values = rng.random((4000, 5))
    p_values[:, :2] /= 1e6
    wrong = [min(holm(row)[2:]) < 0.05 for row in p_values.tolist()]
    assert statistics.fmean(wrong) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize(
    ("scores", "costs", "error", "chosen"),
    [
        ((0.70, 0.71, 0.65), (1, 2, 0), 0.02, 0),  # the cheapest of those near the best
        ((0.70, 0.71, 0.65), (1, 2, 0), 0.005, 1),  # none is near
        ((0.70, 0.71, 0.65), (1, 2, 0), 0.06, 2),
        ((0.70, 0.71, 0.705), (1, 1, 1), 0.02, 1),  # as cheap: the better
        ((0.71, 0.71), (1, 1), 0.02, 0),  # as good: the first
        ((0.71, 0.71), (2, 1), None, 1),  # equal scores are near without an interval
        ((0.70, 0.71), (1, 2), None, 1),
        ((0.70, 0.71), (3, 2), 0.02, 1),  # near, but dearer
        ((0.5,), (7,), None, 0),
    ],
)
def test_the_cheapest_within_one_standard_error_is_chosen(
    scores: tuple[float, ...], costs: tuple[float, ...], error: float | None, chosen: int
) -> None:
    assert choose(scores, costs, error) == chosen


def test_exactly_one_standard_error_is_within() -> None:
    assert choose((0.5, 0.75), (1, 2), 0.25) == 0


def test_without_finalists_there_is_no_choice() -> None:
    with pytest.raises(ValueError, match="at least one"):
        choose((), (), None)


def test_scores_shrink_to_the_mean_where_noise_explains_them() -> None:
    scores = [0.60, 0.62, 0.61, 0.59]
    noise = statistics.variance(scores)
    assert between_variance(scores, noise) == 0.0
    assert between_variance(scores, noise * 2) == 0.0
    assert shrunken(0.62, mean=0.605, between=0.0, within=noise) == 0.605
    assert shrunken(0.62, mean=0.605, between=0.0, within=0.0) == 0.605
    assert between_variance([0.6], 0.0) == 0.0


def test_scores_shrink_by_the_share_of_noise() -> None:
    assert between_variance([0.0, 2.0], 0.5) == 1.5
    assert shrunken(0.8, mean=0.6, between=3.0, within=1.0) == pytest.approx(0.75)
    assert shrunken(0.8, mean=0.6, between=3.0, within=0.0) == pytest.approx(0.8)


def test_the_shrunken_winner_is_not_optimistic() -> None:
    rng = np.random.default_rng(2)
    true = rng.normal(0.6, 0.02, (2000, 200))
    seen = true + rng.normal(0, 0.03, true.shape)
    best = seen.argmax(1)
    optimism, after = [], []
    for run, winner in enumerate(best):
        spread = between_variance(seen[run].tolist(), 0.03**2)
        guess = shrunken(seen[run, winner], mean=seen[run].mean(), between=spread, within=0.03**2)
        optimism.append(seen[run, winner] - true[run, winner])
        after.append(guess - true[run, winner])
    assert statistics.fmean(optimism) > 0.05
    assert statistics.fmean(after) == pytest.approx(0.0, abs=0.003)


@pytest.mark.parametrize(
    ("candidates", "expected"),
    [
        (1, 0.0),
        (2, 1 / math.sqrt(math.pi)),
        (3, 1.5 / math.sqrt(math.pi)),
        (50, 2.24907),
        (200, 2.74604),
    ],
)
def test_the_expected_maximum_of_normals(candidates: int, expected: float) -> None:
    assert expected_optimism(1.0, candidates) == pytest.approx(expected, abs=1e-5)
    assert expected_optimism(0.03, candidates) == pytest.approx(0.03 * expected, abs=1e-6)


def test_a_hundred_items_flatter_the_best_of_200_by_ten_points() -> None:
    assert expected_optimism(math.sqrt(0.15 / 100), 200) == pytest.approx(0.106, abs=0.001)
    assert expected_optimism(math.sqrt(0.15 / 500), 200) == pytest.approx(0.047, abs=0.001)


def test_of_no_candidates_none_is_best() -> None:
    with pytest.raises(ValueError, match="found 0"):
        expected_optimism(1.0, 0)


def answers(rng: np.random.Generator, models: int, items: int) -> NDArray[np.float64]:
    """Return `(models, items)` answers of equally good models.

    Each item is right with a probability of its own, the same for every model: about 60 % of all, and
    ψ = 16 % discordant between any two.
    """
    ease = rng.beta(0.3, 0.2, items)
    return (rng.random((models, items)) < ease).astype(np.float64)


def p_value(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> float:
    found = compare(ours.tolist(), theirs.tolist())
    assert found is not None
    return found.p_value()


def end_of_a_run(rng: np.random.Generator) -> tuple[bool, bool, bool]:
    """Return whether a winner is claimed on search items, on select items, and at last on report items.

    Three parents and 200 candidates, none better than another. The best parent and five finalists are those
    of the search items; Holm's test holds the finalists to that parent on select items; one of them is
    chosen by one standard error, and tested once.
    """
    search, select, report = (answers(rng, 203, items) for items in (200, 300, 300))
    rival = int(search[:3].mean(1).argmax())
    finalists = [3 + int(k) for k in np.argsort(-search[3:].mean(1), kind="stable")[:5]]
    on_search = p_value(search[finalists[0]], search[rival])
    on_select = holm([p_value(select[k], select[rival]) for k in finalists])
    chosen = finalists[
        one_standard_error(
            select[finalists].mean(1).tolist(),
            rng.random(5).tolist(),
            lambda one, other: compare(select[finalists[one]].tolist(), select[finalists[other]].tolist()),
        )
    ]
    return on_search < 0.025, min(on_select) < 0.05, p_value(report[chosen], report[rival]) < 0.025


def test_where_nothing_helps_no_winner_is_reported() -> None:
    """Judged by the items it was chosen on, a winner would be claimed in a sixth of the runs."""
    runs = [end_of_a_run(np.random.default_rng((28, run))) for run in range(800)]
    on_search, on_select, on_report = np.mean(runs, axis=0)
    assert on_search > 0.1
    assert on_select <= 0.05
    assert 0 < on_report <= 0.05
