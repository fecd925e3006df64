"""Scores on all items, told from the first few: unbiased, close, and honest about how close."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.comparison.ease import Ease
from evomerge.comparison.estimate import Estimate, greg, p_irt, soft
from evomerge.testing.siblings import Siblings

Vector = NDArray[np.float64]
Estimator = Callable[[Vector, Ease], Estimate]

ITEMS = 500


def ease_of(candidates: list[Vector]) -> Ease:
    ease = Ease.unknown(len(candidates[0]))
    for scores in candidates:
        ease = ease.add(scores)
    return ease


def shuffled(ease: Ease, order: NDArray[np.int64]) -> Ease:
    return Ease(totals=ease.totals[order], models=ease.models, binary=ease.binary)


def subset_means(
    scores: Vector, ease: Ease, estimate: Estimator, *, count: int, draws: int = 1000
) -> tuple[float, float, float]:
    """Return bias, variance and mean claimed variance over random subsets of `count` items."""
    rng = np.random.default_rng(0)
    made = []
    for _ in range(draws):
        order = rng.permutation(len(scores))
        made.append(estimate(scores[order[:count]], shuffled(ease, order)))
    means = np.array([one.mean for one in made])
    claimed = float(np.mean([one.variance for one in made]))
    return float(means.mean() - scores.mean()), float(means.var()), claimed


@pytest.fixture(scope="module")
def siblings() -> Siblings:
    return Siblings.on(ITEMS, seed=1)


@pytest.fixture(scope="module")
def ease(siblings: Siblings) -> Ease:
    return ease_of([siblings.any_merge(name) for name in range(30)])


def upside_down(ease: Ease) -> Ease:
    """Return an ease in which the easy items are hard, and a third of them are nobody's."""
    totals = ease.models - ease.totals
    totals[::3] = ease.models
    return Ease(totals=totals, models=ease.models)


@pytest.mark.parametrize("count", [25, 100])
def test_greg_is_unbiased_when_the_model_is_wrong(siblings: Siblings, ease: Ease, count: int) -> None:
    scores = siblings.any_merge("new")
    bias, _, _ = subset_means(scores, upside_down(ease), greg, count=count, draws=2000)
    assert abs(bias) < 0.003


def test_p_irt_is_biased_when_the_model_is_wrong(siblings: Siblings, ease: Ease) -> None:
    """The test above can tell: what it holds of GREG does not hold of p-IRT."""
    scores = np.sort(siblings.any_merge("new"))  # nothing to do with ease
    bias, _, _ = subset_means(scores, upside_down(ease), p_irt, count=25)
    assert abs(bias) > 0.006


@pytest.mark.parametrize("models", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 10, 100])
def test_greg_is_unbiased_with_few_candidates(siblings: Siblings, models: int, count: int) -> None:
    few = Ease.unknown(ITEMS)
    for name in range(models):
        few = few.add(siblings.any_merge(name))
    scores = siblings.any_merge("new")
    bias, variance, _ = subset_means(scores, few, greg, count=count)
    assert abs(bias) < 3 * math.sqrt(variance / 1000)


@pytest.mark.parametrize("estimate", [greg, p_irt])
def test_with_all_items_it_is_their_mean(siblings: Siblings, ease: Ease, estimate: Estimator) -> None:
    scores = siblings.any_merge("new")
    whole = estimate(scores, ease)
    assert whole.mean == pytest.approx(scores.mean(), abs=1e-12)
    assert whole.variance == 0


@pytest.mark.parametrize("estimate", [greg, p_irt])
def test_before_any_candidate_it_is_the_mean_of_the_items_seen(estimate: Estimator) -> None:
    seen = np.array([1.0, 0.0, 1.0, 1.0])
    told = estimate(seen, Ease.unknown(10))
    assert told.mean == 0.75
    assert told.variance == pytest.approx(seen.var(ddof=1) / 4 * (1 - 4 / 10))
    assert told.predicted.tolist() == [0.75] * 10


@pytest.mark.parametrize("models", [0, 1, 30, 500])
@pytest.mark.parametrize("count", [1, 2, 25, 500])
@pytest.mark.parametrize("right", [0.0, 1.0])
@pytest.mark.parametrize("others", [0.0, 1.0, None])
def test_all_right_or_all_wrong_stays_finite(
    models: int, count: int, right: float, others: float | None
) -> None:
    """Also against siblings who all did the opposite, where Newton's full step would never settle."""
    mixed = np.arange(ITEMS) % 2.0
    passed = mixed if others is None else np.full(ITEMS, others)
    ease = Ease(totals=np.asarray(models * passed, dtype=np.float64), models=models)
    seen = np.full(count, right)
    for told in (greg(seen, ease), p_irt(seen, ease)):
        assert np.isfinite(told.predicted).all()
        assert abs(told.mean - right) < 0.45 if models and others is None else math.isfinite(told.mean)
        assert told.variance > 0 if count < ITEMS else told.variance == 0


def test_the_fit_is_the_most_probable(siblings: Siblings, ease: Ease) -> None:
    """No nearby shift and slope have a higher posterior than those behind the predictions."""
    seen = siblings.any_merge("new")[:50]
    logits = np.log(told := greg(seen, ease).predicted) - np.log1p(-told)
    slope, shift = np.polyfit(ease.logits, logits, 1)

    def posterior(shift: float, slope: float) -> float:
        at = shift + slope * ease.logits[:50]
        likelihood = float(seen @ at - np.log1p(np.exp(at)).sum())
        return likelihood - shift**2 / 2 - (slope - 1) ** 2 / (2 * 0.5**2)

    around = [(0.01, 0.0), (-0.01, 0.0), (0.0, 0.01), (0.0, -0.01), (0.01, -0.01), (-0.01, 0.01)]
    assert all(posterior(shift, slope) > posterior(shift + a, slope + b) for a, b in around)


PUBLISHED = {  # plain, paired difference, p-IRT, GREG
    20: (0.110, 0.086, 0.046, 0.063),
    50: (0.064, 0.054, 0.034, 0.039),
    100: (0.044, 0.036, 0.024, 0.026),
    200: (0.028, 0.022, 0.016, 0.016),
}
"""Root mean squared errors measured when the estimators were chosen, with 500 items and 30 candidates."""


def test_errors_are_ordered_and_sized_as_measured_before() -> None:
    errors: dict[int, list[tuple[float, ...]]] = defaultdict(list)
    inside: dict[int, list[tuple[bool, ...]]] = defaultdict(list)
    for seed in range(40):
        siblings = Siblings.on(ITEMS, seed=seed)
        fully = [siblings.any_merge(name) for name in range(30)]
        ease = ease_of(fully)
        for name in range(20):
            scores, other = siblings.any_merge(f"new {name}"), fully[name]
            for count in PUBLISHED:
                order = np.random.default_rng([seed, name, count]).permutation(ITEMS)
                seen, same = scores[order[:count]], other[order[:count]]
                about = shuffled(ease, order)
                told = (p_irt(seen, about), greg(seen, about))
                plain = (seen.mean(), other.mean() + (seen - same).mean())
                missed = [mean - scores.mean() for mean in (*plain, *(one.mean for one in told))]
                errors[count].append(tuple(map(float, missed)))
                inside[count].append(
                    tuple(abs(one.mean - scores.mean()) < 2 * math.sqrt(one.variance) for one in told)
                )
    for count, published in PUBLISHED.items():
        found = np.sqrt(np.mean(np.square(errors[count]), axis=0))
        assert found[0] > found[1] > found[3] > found[2]
        assert found == pytest.approx(published, rel=0.15, abs=0.002)
        irt, regression = np.mean(inside[count], axis=0)
        assert 0.93 < regression < 0.98
        assert irt > 0.93  # its model's word, and siblings keep to the model


def test_the_claimed_variance_is_that_over_subsets(siblings: Siblings, ease: Ease) -> None:
    scores = siblings.any_merge("new")
    for about in (ease, upside_down(ease), Ease.unknown(ITEMS)):
        _, variance, claimed = subset_means(scores, about, greg, count=100)
        assert claimed == pytest.approx(variance, rel=0.12)


@pytest.fixture(scope="module")
def graded() -> list[Vector]:
    """Log-likelihoods of documents, in nats: long documents far below short ones."""
    rng = np.random.default_rng(3)
    length = rng.lognormal(4, 0.7, size=ITEMS)
    return [-length * (1 + 0.05 * rng.normal()) + 4 * rng.normal(size=ITEMS) for _ in range(9)]


def test_graded_scores_are_told_by_a_line(graded: list[Vector]) -> None:
    ease, scores = ease_of(graded[:8]), graded[8]
    bias, variance, claimed = subset_means(scores, ease, greg, count=50, draws=500)
    plain = scores.var() / 50 * (1 - 50 / ITEMS)
    assert variance < 0.05 * plain
    assert abs(bias) < 3 * math.sqrt(variance / 500) + 0.1
    assert claimed == pytest.approx(variance, rel=0.25)
    bias, variance, _ = subset_means(scores, ease, p_irt, count=50, draws=500)
    assert bias**2 + variance < 0.05 * plain


@pytest.mark.parametrize("models", [0, 1, 2, 5])
@pytest.mark.parametrize("count", [1, 2, 3, ITEMS])
def test_graded_scores_need_few_candidates(graded: list[Vector], models: int, count: int) -> None:
    ease = Ease.unknown(ITEMS)
    for scores in graded[:models]:
        ease = ease.add(scores)
    for told in (greg(graded[8][:count], ease), p_irt(graded[8][:count], ease)):
        assert math.isfinite(told.mean)
        assert math.isfinite(told.variance)
    assert count < ITEMS or told.mean == pytest.approx(graded[8].mean())


def test_graded_scores_that_never_vary_are_no_division_by_zero() -> None:
    ease = Ease.unknown(4).add([2.0, 2.0, 2.0, 2.0])
    told = greg([2.5, 2.5], ease)
    assert told.mean == 2.5
    assert told.variance > 0


def test_ease_counts_and_leaves_what_it_was_alone() -> None:
    before = Ease.unknown(3)
    after = before.add([1, 0, 1]).add([1, 0, 0])
    assert before.models == 0
    assert np.isnan(before.mean).all()
    assert after.models == 2
    assert after.mean.tolist() == [1.0, 0.0, 0.5]
    assert after.logits == pytest.approx([math.log(5), -math.log(5), 0])
    assert after.binary
    assert not after.add([0.5, 0, 0]).binary


def test_a_wrong_number_of_scores_is_refused() -> None:
    ease = Ease.unknown(3)
    with pytest.raises(ValueError, match="kept of 3 items, found scores of shape"):
        ease.add([1, 0])
    for seen in ([], [1.0] * 4):
        with pytest.raises(ValueError, match="takes 1 to 3 scores, found"):
            greg(seen, ease)


def test_soft_margins_rise_with_the_margin() -> None:
    assert soft([-1e6, 0, 2, 1e6], 2.0) == pytest.approx([0, 0.5, 1 / (1 + math.exp(-1)), 1])
    with pytest.raises(ValueError, match="must be positive, found 0"):
        soft([1.0], 0.0)
