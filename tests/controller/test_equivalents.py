"""Which earlier trial's scores may stand for a candidate's, and what happens when they should not have."""

from __future__ import annotations

import logging
import math
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from evomerge.comparison.divergence import divergences
from evomerge.controller.equivalents import NEAR, Alike, Equivalents, Same, agreement
from evomerge.types import Identified, ItemScores


def identified(shift: float = 0.0, *, digest: str | None = None, **rest: Any) -> Identified:
    """Return a model whose first log-probability is shifted, and whose weights are like none but its like."""
    fields: dict[str, Any] = {
        "digest": digest or f"d{shift}", "fingerprint": ((-1.0 + shift, -2.0), (-0.5, -1.5)), "noise": 1e-6,
        "device": "cpu", "merge_seconds": 0.1, "basis": "b",
    }  # fmt: skip
    return Identified(**fields | rest)


@pytest.fixture
def known() -> Equivalents:
    known = Equivalents(seed=0)
    known.add(3, "k3", identified())
    return known


def test_an_equal_recipe_is_the_same(known: Equivalents) -> None:
    assert known.by_recipe("k3") == Same(trial=3, how="recipe")
    assert known.by_recipe("k4") is None
    known.add(3, "k4")  # which inherited from it
    assert known.by_recipe("k4") == Same(trial=3, how="recipe")
    known.add(5, "k3", identified(0.5))
    assert known.by_recipe("k3") == Same(trial=3, how="recipe")


def test_equal_weights_are_the_same_on_one_device(known: Equivalents) -> None:
    other = identified(1.0, digest="d0.0")
    assert known.by_model(other) == Same(trial=3, how="weights")
    assert known.by_model(identified(1.0, digest="d0.0", device="cuda")) is None


def test_near_fingerprints_are_alike_on_one_device_and_basis(known: Equivalents) -> None:
    near = identified(1e-3)
    found = known.by_model(near)
    assert isinstance(found, Alike)
    assert found.trial == 3
    assert 0 < found.distance <= 3e-6
    assert known.by_model(identified(0.05)) is None
    for other in ({"device": "cuda"}, {"basis": "c"}, {"basis": ""}):
        assert known.by_model(identified(1e-3, **other)) is None


@pytest.mark.parametrize(("noise", "near"), [(1e-6, False), (1e-5, True)])
def test_near_is_three_times_the_noise(known: Equivalents, noise: float, near: bool) -> None:
    shifted = identified(0.02, noise=noise)  # 1.1e-5 away
    assert (known.by_model(shifted) is not None) == near


def test_the_nearest_counts_and_of_equals_the_first(known: Equivalents) -> None:
    known.add(6, "k6", identified(2e-3))
    known.add(7, "k7", identified(2e-3, digest="again"))
    found = known.by_model(identified(1.8e-3))
    assert isinstance(found, Alike)
    assert found.trial == 6


def test_models_without_fingerprints_are_known_by_weights_alone() -> None:
    known = Equivalents(seed=0)
    known.add(1, "a", identified(digest="x", basis="", fingerprint=()))
    assert known.by_model(identified(digest="y", basis="", fingerprint=())) is None
    assert known.by_model(identified(digest="x", basis="", fingerprint=())) == Same(trial=1, how="weights")


def test_one_in_fifty_is_audited_by_seed_and_trial() -> None:
    drawn = [trial for trial in range(5000) if Equivalents(seed=1).audited(trial)]
    assert 60 < len(drawn) < 140
    assert drawn == [trial for trial in range(5000) if Equivalents(seed=1).audited(trial)]
    assert drawn != [trial for trial in range(5000) if Equivalents(seed=2).audited(trial)]


def test_too_many_wrong_audits_end_near_hits_and_say_so(
    known: Equivalents, caplog: pytest.LogCaptureFixture
) -> None:
    hit = Alike(trial=3, distance=1e-6)
    for trial in range(100, 149):
        known.audit(trial, hit, {"acc": 0.5, "ppl": 200.0}, {"acc": 0.509, "ppl": 201.9})
    known.audit(149, hit, {"acc": 0.5}, {"acc": 0.52})  # one in fifty
    assert known.near
    assert known.by_model(identified(1e-3)) is not None
    with caplog.at_level(logging.WARNING):
        known.audit(150, hit, {"acc": 0.5, "ppl": 200.0}, {"acc": 0.5, "ppl": 203.0})
    assert not known.near
    assert "2 of 51 candidates" in caplog.text
    assert "trial 150" in caplog.text
    assert known.by_model(identified(1e-3)) is None
    assert known.by_model(identified(0.0)) == Same(trial=3, how="weights")
    assert known.by_recipe("k3") is not None


def scores(*found: float, first: int = 0, metric: str = "acc") -> ItemScores:
    items = tuple(f"i{first + k}" for k in range(len(found)))
    return ItemScores(task="t", metric=metric, filter="none", items=items, scores=found)


def test_a_probe_must_be_large_enough_and_agree() -> None:
    theirs = [scores(*[1.0, 0.0] * 100)]
    found = agreement([scores(*[1.0, 0.0] * 25)], theirs)
    assert (found.probed, found.agreeing) == (0.25, 1.0)
    assert found.enough
    assert found.holds
    assert not agreement([scores(*[1.0, 0.0] * 24)], theirs).enough
    assert not agreement([scores(*[0.0], *[0.0, 1.0] * 24, first=1)], theirs).holds
    one_off = [1.0, 0.0] * 50
    one_off[7] = 1.0
    assert agreement([scores(*one_off)], theirs).holds  # 99 of 100
    one_off[8] = 0.0
    assert not agreement([scores(*one_off)], theirs).holds


def test_every_measure_must_agree_and_only_common_items_count() -> None:
    theirs = [scores(*[1.0] * 8), scores(*[-50.0] * 8, metric="ll")]
    assert agreement([scores(1.0, 1.0), scores(-50.2, -49.8, metric="ll")], theirs).holds
    assert not agreement([scores(1.0, 1.0), scores(-50.2, -45.0, metric="ll")], theirs).holds
    assert agreement([scores(1.0, 1.0, first=7)], theirs).probed == 1 / 8
    assert not agreement([scores(1.0, first=20)], theirs).holds
    assert not agreement([], theirs).enough
    assert agreement([scores(math.nan)], [scores(math.nan)]).holds


def test_the_nearest_of_many_is_found_though_few_are_compared() -> None:
    """Against all distances: each has noise of its own, and they are from far apart to within that."""
    rng = np.random.default_rng(0)
    known, rows, noises = Equivalents(seed=0), list[Any](), list[float]()
    found = 0
    for number in range(300):
        base = rows[rng.integers(number)] if number % 2 else rng.normal(size=(3, 5))
        row = base + rng.normal(scale=10.0 ** rng.uniform(-4, -1), size=(3, 5))
        noise = 10.0 ** rng.uniform(-7, -4)
        model = identified(digest=str(number), fingerprint=tuple(map(tuple, row.tolist())), noise=noise)
        if rows:
            apart = divergences(row, np.stack(rows))
            first = int(apart.argmin())
            near = apart[first] <= NEAR * max(noise, noises[first])
            expected = Alike(trial=first, distance=float(apart[first])) if near else None
            assert known.by_model(model) == expected
            found += near
        known.add(number, str(number), model)
        rows.append(row)
        noises.append(noise)
    assert 20 < found < 200


@given(st.integers(0, 2**32))
def test_no_token_differs_by_more_than_the_distance_allows(seed: int) -> None:
    rng = np.random.default_rng(seed)
    one, other = rng.dirichlet(np.full(4, 10.0 ** rng.uniform(-1, 1)), size=(2, 3))
    apart = divergences(np.log(one + 1e-9), np.log(other + 1e-9)[None])[0]
    assert ((one - other)[:, 0] ** 2).mean() / 2 <= apart + 1e-7
