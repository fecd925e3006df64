"""Paired differences: their tests keep their size and have the power that was measured for them."""

import math
from collections.abc import Callable, Sequence
from functools import cache

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy import stats

from evomerge.comparison.paired import Difference, compare, composite, mid_p

Counts = NDArray[np.int64]
LOOKS = (25, 50, 100, 200, 350, 500)


def difference(
    ours: Sequence[float], theirs: Sequence[float], clusters: Sequence[str] | None = None
) -> Difference:
    found = compare(ours, theirs, clusters=clusters)
    assert found is not None
    return found


@cache
def tallied(items: int, wins: int, losses: int) -> Difference:
    """Return the difference of two models of which ours alone is right on `wins`, theirs on `losses`."""
    ours = [1.0] * wins + [0.0] * (items - wins)
    theirs = [0.0] * wins + [1.0] * losses + [0.0] * (items - wins - losses)
    return difference(ours, theirs)


def draw(items: int, *, gap: float, discordance: float, runs: int, seed: int) -> Counts:
    """Return wins and losses `(runs, 2)`.

    An item is won with probability (ψ + gap)/2, lost with (ψ − gap)/2, and otherwise the same for both.
    """
    won, lost = (discordance + gap) / 2, (discordance - gap) / 2
    return np.random.default_rng(seed).multinomial(items, [won, lost, 1 - won - lost], size=runs)[:, :2]


def verdicts(items: int, counts: Counts, test: Callable[[Difference], bool]) -> NDArray[np.bool_]:
    """Return `(runs,)` what `test` says, asked once for each pair of counts that occurs."""
    kinds, which = np.unique(counts, axis=0, return_inverse=True)
    said = [test(tallied(items, int(wins), int(losses))) for wins, losses in kinds]
    return np.array(said)[which.ravel()]


def race(
    test: Callable[[Difference], bool], *, gap: float, discordance: float = 0.16, runs: int = 20_000
) -> tuple[float, float]:
    """Return the share of runs that `test` drops at one of the looks, and the mean number of items used."""
    alive, used = np.ones(runs, dtype=bool), np.zeros(runs)
    counts = np.zeros((runs, 2), dtype=np.int64)
    for before, items in zip((0, *LOOKS), LOOKS, strict=False):
        counts += draw(items - before, gap=gap, discordance=discordance, runs=runs, seed=items)
        used[alive] = items
        alive &= ~verdicts(items, counts, test)
    return float(1 - alive.mean()), float(used.mean())


def test_the_interval_is_students() -> None:
    ours, theirs = [0.9, 0.1, 0.5, 0.7], [0.4, 0.2, 0.5, 0.1]
    found = difference(ours, theirs)
    reference = stats.ttest_rel(ours, theirs)
    assert found.interval() == pytest.approx(tuple(reference.confidence_interval(0.95)))
    assert found.interval(0.6) == pytest.approx(tuple(reference.confidence_interval(0.6)))
    assert (found.lower(0.025), found.upper(0.025)) == pytest.approx(found.interval())
    greater = stats.ttest_rel(ours, theirs, alternative="greater")
    assert found.p_value() == pytest.approx(greater.pvalue)
    assert found.above(found.p_value() + 1e-9)
    assert not found.above(found.p_value() - 1e-9)
    assert (found.count, found.df, found.wins, found.losses) == (4, 3, None, None)


def test_a_difference_of_binary_scores() -> None:
    found = tallied(200, 20, 10)
    assert (found.wins, found.losses, found.sparse) == (20, 10, False)
    assert found.mean == 0.05
    assert found.deviation == pytest.approx(math.sqrt((0.15 - 0.05**2) * 200 / 199))


@pytest.mark.parametrize(("wins", "losses"), [(0, 0), (1, 0), (0, 5), (3, 4), (30, 12), (700, 800)])
def test_mid_p_is_half_way_between_two_binomial_tails(wins: int, losses: int) -> None:
    from_here = stats.binom.sf(wins - 1, wins + losses, 0.5)
    beyond = stats.binom.sf(wins, wins + losses, 0.5)
    assert mid_p(wins, losses) == pytest.approx((from_here + beyond) / 2)


def test_with_few_discordant_pairs_the_exact_test_decides() -> None:
    found = tallied(400, 0, 4)
    assert found.sparse
    assert found.upper(0.03) < 0  # so by t it would be below
    assert not found.below(0.03)
    assert found.below(0.032)  # ½·2⁻⁴ = .03125
    assert found.p_value() == pytest.approx(1 - 0.03125)
    assert found.below(0.03, margin=0.001)  # no exact test of a margin
    mirrored = tallied(400, 4, 0)
    assert not mirrored.above(0.03)
    assert mirrored.above(0.032)
    assert mirrored.p_value() == pytest.approx(0.03125)
    assert not tallied(400, 0, 10).sparse


@pytest.mark.parametrize("scores", [(0.0,) * 40, (1.0,) * 40, (0.3,) * 40])
def test_equal_answers_prove_nothing_but_that_the_gap_is_small(scores: Sequence[float]) -> None:
    found = difference(scores, scores)
    assert (found.mean, found.deviation) == (0.0, 1 / math.sqrt(40))
    assert not found.below(0.49)
    assert not found.above(0.49)
    assert found.p_value() == 0.5
    assert found.upper(0.05) == pytest.approx(stats.t.ppf(0.95, 39) / 40)


def test_equal_differences_leave_the_deviation_of_their_number() -> None:
    ours, theirs = [0.1 * k + 0.3 for k in range(9)], [0.1 * k for k in range(9)]
    found = difference(ours, theirs)
    assert found.mean == pytest.approx(0.3)
    assert found.deviation == 1 / 3


@pytest.mark.parametrize("scores", [[], [1.0], [1.0, math.nan], [math.inf, 0.0]])
def test_without_two_finite_items_there_is_no_difference(scores: list[float]) -> None:
    assert compare(scores, [0.0] * len(scores)) is None
    assert compare(scores, scores) is None


def test_scores_of_other_items_are_refused() -> None:
    with pytest.raises(ValueError, match="found 3, 2: pair them"):
        compare([1.0, 0.0, 1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="found 2, 2 and 1 clusters"):
        compare([1.0, 0.0], [1.0, 0.0], clusters=["a"])


def test_the_order_of_items_does_not_change_a_digit() -> None:
    rng = np.random.default_rng(3)
    ours, theirs = rng.random((2, 301))
    clusters = [f"passage {k}" for k in rng.integers(0, 60, 301)]
    other = rng.permutation(301)
    assert compare(ours, theirs) == compare(ours[other], theirs[other])
    by_cluster = difference(ours, theirs, clusters)
    assert by_cluster == difference(ours[other], theirs[other], [clusters[k] for k in other])


def test_turned_error_counts_are_binary_too() -> None:
    found = difference([-1.0, 0.0, -0.0, 0.0], [-1.0, -1.0, 0.0, 0.0])
    assert (found.wins, found.losses) == (1, 0)
    mixed = difference([-1.0, 1.0], [0.0, 0.0])
    assert mixed.wins is None


def test_copies_of_an_item_count_once_when_clustered() -> None:
    rng = np.random.default_rng(4)
    ours, theirs = rng.random((2, 30)).tolist()
    once = difference(ours, theirs)
    fivefold = difference(ours * 5, theirs * 5, clusters=[f"passage {k}" for k in range(30)] * 5)
    naive = difference(ours * 5, theirs * 5)
    assert (fivefold.count, fivefold.df, fivefold.wins) == (30, 29, None)
    assert fivefold.mean == pytest.approx(once.mean)
    assert fivefold.deviation == pytest.approx(once.deviation)
    assert naive.standard_error < 0.5 * once.standard_error


def test_clusters_of_other_sizes_keep_their_level() -> None:
    """A gap of 3 and an effect per passage, passages of 1 to 9 items, the size unrelated to the effect."""
    rng = np.random.default_rng(5)
    sizes = np.tile([1, 2, 4, 9], 10)
    clusters = [str(k) for k in np.repeat(np.arange(40), sizes)]
    wrong = naive = 0
    for _ in range(1500):
        ours = (np.repeat(rng.normal(3, 1, 40), sizes) + rng.normal(size=len(clusters))).tolist()
        found = difference(ours, [0.0] * len(ours), clusters=clusters)
        plain = difference(ours, [0.0] * len(ours))
        wrong, naive = wrong + found.below(0.05, 3.0), naive + plain.below(0.05, 3.0)
    assert wrong / 1500 == pytest.approx(0.05, abs=0.02)
    assert naive / 1500 > 0.12


def test_clusters_of_one_item_change_nothing() -> None:
    ours, theirs = [1.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 0.0]
    found = difference(ours, theirs, clusters=["a", "b", "c", "d"])
    assert found.wins == 2
    assert found == difference(ours, theirs)


def test_items_that_are_all_one_cluster_tell_nothing() -> None:
    assert compare([1.0, 0.0, 1.0], [0.0, 0.0, 1.0], clusters=["a"] * 3) is None


def test_clusters_that_agree_leave_the_deviation_of_their_number() -> None:
    found = difference([0.7, 0.1, 0.7, 0.1], [0.1, 0.3, 0.1, 0.3], clusters=["a", "a", "b", "b"])
    assert found.deviation == 1 / math.sqrt(2)


def test_a_composite_is_welchs() -> None:
    rng = np.random.default_rng(6)
    one, other = rng.normal(0.2, 1.0, 12), rng.normal(-0.1, 3.0, 30)
    parts = [difference(x.tolist(), [0.0] * len(x)) for x in (one, other)]
    found = composite(parts, [1.0, -1.0])
    reference = stats.ttest_ind(one, other, equal_var=False)
    assert found.df == pytest.approx(reference.df)
    assert found.interval() == pytest.approx(tuple(reference.confidence_interval()))
    assert (found.count, found.wins, found.sparse) == (42, None, False)


def test_a_composite_of_one_part_is_that_part_scaled() -> None:
    part = difference([0.9, 0.1, 0.5], [0.4, 0.2, 0.5])
    found = composite([part], [2.0])
    assert found.df == pytest.approx(part.df)
    assert found.interval() == pytest.approx([2 * bound for bound in part.interval()])


@pytest.mark.parametrize(("parts", "weights"), [(0, []), (1, [0.0]), (1, [1.0, 1.0])])
def test_a_composite_of_nothing_is_refused(parts: int, weights: list[float]) -> None:
    with pytest.raises(ValueError):
        composite([tallied(20, 2, 1)] * parts, weights)


@pytest.mark.parametrize(("gap", "rate"), [(0.0, 0.050), (-0.05, 0.575)])
def test_size_and_power_at_200_items(gap: float, rate: float) -> None:
    """Sizes and powers at ψ = .15 and a nominal 5 %; the standard error of 50 000 runs is at most .002."""
    counts = draw(200, gap=gap, discordance=0.15, runs=50_000, seed=1)

    def share(test: Callable[[Difference], bool]) -> float:
        return float(verdicts(200, counts, test).mean())

    assert share(lambda d: d.upper(0.05) < 0) == pytest.approx(rate, abs=0.007)
    assert share(lambda d: mid_p(d.losses or 0, d.wins or 0) < 0.05) == pytest.approx(rate, abs=0.007)
    assert share(lambda d: d.below(0.05)) == pytest.approx(rate, abs=0.007)


@pytest.mark.parametrize("items", [10, 25, 50, 100])
@pytest.mark.parametrize("discordance", [0.02, 0.05, 0.15, 0.5])
@pytest.mark.parametrize("alpha", [0.2 / 6, 0.05])
def test_equal_models_are_rarely_told_apart(items: int, discordance: float, alpha: float) -> None:
    counts = draw(items, gap=0.0, discordance=discordance, runs=20_000, seed=2)
    for test in (Difference.below, Difference.above):
        share = verdicts(items, counts, lambda d, test=test: test(d, alpha)).mean()  # type: ignore[misc]
        assert share < alpha * 1.2


def test_looking_often_without_correction_errs_often() -> None:
    by_t, _ = race(lambda d: d.upper(0.05) < 0, gap=0.0)
    assert by_t == pytest.approx(0.18, abs=0.012)


def test_sharing_alpha_among_the_looks_keeps_it() -> None:
    size, _ = race(lambda d: d.below(0.05 / len(LOOKS)), gap=0.0)
    power, items = race(lambda d: d.below(0.05 / len(LOOKS)), gap=-0.075)
    assert size == pytest.approx(0.029, abs=0.004)
    assert power == pytest.approx(0.974, abs=0.008)
    assert items == pytest.approx(227, abs=5)
