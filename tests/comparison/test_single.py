"""The standard error of one model's score."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from evomerge.comparison.items import aggregate
from evomerge.comparison.single import standard_error
from evomerge.types import Aggregate, ItemScores, Measure

MEASURE = Measure(name="m", task="t", metric="acc", filter="none", higher_is_better=True)


def items(*scores: float, weights: tuple[float, ...] | None = None) -> ItemScores:
    names = tuple(f"i{k}" for k in range(len(scores)))
    return ItemScores(task="t", metric="acc", filter="none", items=names, scores=scores, weights=weights)


def test_of_a_mean_it_is_the_usual_one() -> None:
    scores = (0.0, 1.0, 1.0, 0.25, 1.0)
    found = standard_error(MEASURE, items(*scores))
    assert found == pytest.approx(np.std(scores, ddof=1) / math.sqrt(5))


def test_items_of_a_cluster_count_together() -> None:
    scores = (0.0, 0.0, 1.0, 1.0)
    pairs = {"i0": "a", "i1": "a", "i2": "b", "i3": "b"}
    alone = standard_error(MEASURE, items(0.0, 1.0))
    assert standard_error(MEASURE, items(*scores), clusters=pairs) == pytest.approx(alone)
    single = {f"i{k}": f"c{k}" for k in range(4)}
    assert standard_error(MEASURE, items(*scores), clusters=single) == pytest.approx(
        standard_error(MEASURE, items(*scores))
    )


@pytest.mark.parametrize("kind", ["weighted_perplexity", "bits_per_byte"])
def test_of_perplexities_it_is_the_spread_over_samples(kind: Aggregate) -> None:
    measure = replace(MEASURE, aggregate=kind, higher_is_better=False)
    rng = np.random.default_rng(0)
    weights = rng.integers(5, 50, (400, 300)).astype(float)
    scores = -0.8 * weights + rng.normal(0, 2, weights.shape)
    samples = [
        items(*row, weights=tuple(w)) for row, w in zip(scores.tolist(), weights.tolist(), strict=True)
    ]
    spread = float(np.std([aggregate(measure, each) for each in samples]))
    told = [standard_error(measure, each) for each in samples[:50]]
    assert np.mean([each for each in told if each is not None]) == pytest.approx(spread, rel=0.1)


def test_there_is_none_of_one_item_or_of_what_is_no_mean() -> None:
    assert standard_error(MEASURE, items(1.0)) is None
    assert standard_error(MEASURE, items(1.0, 0.0), clusters={"i0": "a", "i1": "a"}) is None
    assert standard_error(replace(MEASURE, aggregate="other"), items(1.0, 0.0)) is None
    assert standard_error(MEASURE, items(1.0, math.nan)) is None
