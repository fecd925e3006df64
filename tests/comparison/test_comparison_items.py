"""Item scores compared: joined by hash, in the measure's units, better being positive."""

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from evomerge.comparison.items import aggregate, compare_items, contributions, join
from evomerge.comparison.paired import compare
from evomerge.types import Aggregate, ItemScores, Measure

RATES: list[Aggregate] = ["perplexity", "weighted_perplexity", "bits_per_byte"]


def measure(kind: Aggregate = "mean", *, higher: bool = False) -> Measure:
    return Measure(
        name="t", task="t", metric="m", filter="none", higher_is_better=higher, aggregate=kind
    )  # fmt: skip


def scores(values: list[float], weights: list[float] | None = None, *, start: int = 0) -> ItemScores:
    return ItemScores(
        task="t",
        metric="m",
        filter="none",
        items=tuple(f"item {k}" for k in range(start, start + len(values))),
        scores=tuple(values),
        weights=None if weights is None else tuple(weights),
    )


def texts(seed: int, items: int = 200) -> tuple[ItemScores, ItemScores]:
    """Return two models' log-likelihoods of texts of 10 to 300 words, ours a little better."""
    rng = np.random.default_rng(seed)
    words = rng.integers(10, 300, items)
    theirs = -words * rng.normal(1.5, 0.3, items)
    ours = theirs + words * rng.normal(0.05, 0.1, items)
    return scores(ours.tolist(), words.tolist()), scores(theirs.tolist(), words.tolist())


def take(found: ItemScores, which: list[int]) -> ItemScores:
    return replace(
        found,
        items=tuple(found.items[k] for k in which),
        scores=tuple(found.scores[k] for k in which),
        weights=tuple(found.weights[k] for k in which) if found.weights else None,
    )


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("mean", -2.0),
        ("perplexity", math.exp(2.0)),
        ("weighted_perplexity", math.exp(0.6)),
        ("bits_per_byte", 0.6 / math.log(2)),
    ],
)
def test_an_aggregate_is_what_lm_eval_makes_of_the_items(kind: Aggregate, value: float) -> None:
    assert aggregate(measure(kind), scores([-1.0, -2.0, -3.0], [2.0, 3.0, 5.0])) == pytest.approx(value)


def test_aggregates_agree_with_lm_evals_own() -> None:
    from lm_eval.api.registry import get_aggregation

    ours, _ = texts(1)
    assert ours.weights is not None
    pairs = list(zip(ours.scores, ours.weights, strict=True))
    for kind in RATES[1:]:
        assert aggregate(measure(kind), ours) == pytest.approx(get_aggregation(kind)(pairs), rel=1e-12)
    small = scores([score / 100 for score in ours.scores])
    plain: list[Aggregate] = ["mean", "perplexity"]
    for kind in plain:
        expected = get_aggregation(kind)(list(small.scores))
        assert aggregate(measure(kind), small) == pytest.approx(expected, rel=1e-12)


def test_weights_left_out_are_one() -> None:
    for kind in RATES:
        assert aggregate(measure(kind), scores([-1.0, -2.0])) == aggregate(
            measure(kind), scores([-1.0, -2.0], [1.0, 1.0])
        )


def test_a_perplexity_too_large_is_infinite() -> None:
    assert aggregate(measure("perplexity"), scores([-1000.0])) == math.inf
    assert compare_items(measure("perplexity"), scores([-1000.0] * 3), scores([-1.0] * 3)) is None


def test_there_is_no_aggregate_of_nothing_or_of_another_kind() -> None:
    with pytest.raises(ValueError, match="at least one item"):
        aggregate(measure(), scores([]))
    with pytest.raises(ValueError, match="no mean or perplexity"):
        aggregate(measure("other"), scores([1.0]))


def test_a_difference_is_positive_where_ours_is_better() -> None:
    ours, theirs = scores([1.0, 1.0, 0.0]), scores([0.0, 1.0, 0.0])
    up = compare_items(measure(higher=True), ours, theirs)
    down = compare_items(measure(higher=False), ours, theirs)
    assert up is not None
    assert down is not None
    assert (up.wins, up.losses, down.wins, down.losses) == (1, 0, 0, 1)
    assert (up.mean, down.mean) == pytest.approx((1 / 3, -1 / 3))


@pytest.mark.parametrize("kind", ["mean", *RATES])
def test_items_are_joined_by_their_hash(kind: Aggregate) -> None:
    """Shuffled, and with more items than the other side has, it is the same to the last digit."""
    ours, theirs = texts(2)
    common = compare_items(
        measure(kind), take(ours, list(range(50, 150))), take(theirs, list(range(50, 150)))
    )
    order = np.random.default_rng(0).permutation(150).tolist()
    mixed = compare_items(measure(kind), take(ours, order), take(theirs, list(range(50, 200))))
    assert common is not None
    assert common.count == 100
    assert mixed == common


@pytest.mark.parametrize("kind", RATES)
def test_a_perplexitys_difference_is_exact_and_its_error_the_jackknifes(kind: Aggregate) -> None:
    ours, theirs = texts(3)
    if kind == "perplexity":
        ours, theirs = (scores([s / 200 for s in side.scores]) for side in (ours, theirs))
    asked = measure(kind)
    found = compare_items(asked, ours, theirs)
    assert found is not None
    assert found.mean == aggregate(asked, theirs) - aggregate(asked, ours)
    assert found.mean > 0
    assert (found.count, found.wins) == (200, None)

    def without(k: int) -> float:
        rest = [j for j in range(200) if j != k]
        return aggregate(asked, take(theirs, rest)) - aggregate(asked, take(ours, rest))

    left_out = np.array([without(k) for k in range(200)])
    jackknife = math.sqrt(199 / 200 * ((left_out - left_out.mean()) ** 2).sum())
    assert found.standard_error == pytest.approx(jackknife, rel=0.02)


def test_a_perplexitys_error_is_the_bootstraps() -> None:
    ours, theirs = texts(4)
    found = compare_items(measure("weighted_perplexity"), ours, theirs)
    assert found is not None
    drawn = np.random.default_rng(5).integers(0, 200, (4000, 200))
    words = np.array(ours.weights)[drawn].sum(1)
    mine, other = (np.exp(-np.array(side.scores)[drawn].sum(1) / words) for side in (ours, theirs))
    assert found.standard_error == pytest.approx((other - mine).std(), rel=0.05)


@pytest.mark.parametrize("kind", ["mean", *RATES])
def test_two_copies_of_a_model_differ_by_nothing(kind: Aggregate) -> None:
    ours, _ = texts(6, items=25)
    found = compare_items(measure(kind), ours, ours)
    assert found is not None
    assert (found.mean, found.deviation) == (0.0, 0.2)


@pytest.mark.parametrize("kind", RATES[1:])
def test_clusters_are_of_items(kind: Aggregate) -> None:
    """Texts cut in two and clustered have the error of the whole texts; an item not named stands alone."""

    def halves(side: ItemScores) -> ItemScores:
        assert side.weights is not None
        half = [s / 2 for s in side.scores], [w / 2 for w in side.weights]
        return join([scores(*half), scores(*half, start=60)])

    ours, theirs = texts(7, items=60)
    clusters = {f"item {60 + k}": f"item {k}" for k in range(60)}
    found = compare_items(measure(kind), halves(ours), halves(theirs), clusters=clusters)
    whole = compare_items(measure(kind), ours, theirs)
    assert found is not None
    assert whole is not None
    assert (found.count, found.df) == (60, 59)
    assert found.mean == pytest.approx(whole.mean)
    assert found.standard_error == pytest.approx(whole.standard_error)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda found: take(found, [0]),
        lambda found: replace(found, items=tuple(f"other {k}" for k in range(5))),
        lambda found: replace(found, scores=(math.nan, *found.scores[1:])),
    ],
    ids=["one common item", "no common item", "a score without meaning"],
)
def test_without_an_interval_there_is_no_difference(spoil: Callable[[ItemScores], ItemScores]) -> None:
    found = scores([1.0, 0.0, 1.0, 0.0, 1.0])
    for kind in ("mean", *RATES):
        assert compare_items(measure(kind), spoil(found), found) is None
        assert compare_items(measure(kind), found, spoil(found)) is None
    assert compare_items(measure("other"), found, found) is None


@pytest.mark.parametrize("kind", RATES)
def test_contributions_order_models_as_the_measure_does(kind: Aggregate) -> None:
    sides = texts(8)
    means = []
    for side in sides:
        found = contributions(measure(kind), side)
        assert found is not None
        assert found.shape == (200,)
        means.append(found.mean())
    rate = -math.log(aggregate(measure("weighted_perplexity"), sides[0]))
    if kind != "perplexity":
        assert means[0] == pytest.approx(rate)
    values = [aggregate(measure(kind), side) for side in sides]
    assert (means[0] > means[1]) == (values[0] < values[1])
    turned = contributions(measure(kind, higher=True), sides[0])
    assert turned is not None
    assert turned.mean() == pytest.approx(-means[0])


def test_contributions_of_an_average_are_its_scores() -> None:
    found = scores([0.25, 1.0])
    up, down = (contributions(measure(higher=higher), found) for higher in (True, False))
    assert up is not None
    assert down is not None
    assert (up.tolist(), down.tolist()) == ([0.25, 1.0], [-0.25, -1.0])
    difference = compare(up.tolist(), [0.0, 0.0])
    assert difference is not None
    assert difference.mean == aggregate(measure(), found)


def test_what_has_no_meaning_on_one_item_contributes_nothing() -> None:
    assert contributions(measure("other"), scores([1.0])) is None
    assert contributions(measure("mean"), scores([1.0, math.nan])) is None


def test_looks_are_joined_in_order() -> None:
    first, second = scores([1.0, 0.0]), scores([3.0], [2.0], start=2)
    joined = join([first, second])
    assert joined == scores([1.0, 0.0, 3.0], [1.0, 1.0, 2.0])
    assert join([first]) == first


def test_margins_are_joined_where_all_have_them() -> None:
    first = replace(scores([1.0, 0.0]), margins=(0.5, -0.1))
    second = scores([1.0], start=2)
    assert join([first, replace(second, margins=(0.2,))]).margins == (0.5, -0.1, 0.2)
    assert join([first, second]).margins is None


def test_looks_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(ValueError, match="share 1 items"):
        join([scores([1.0, 0.0]), scores([1.0], start=1)])
    with pytest.raises(ValueError, match="of one metric"):
        join([scores([1.0]), replace(scores([1.0], start=1), metric="other")])
