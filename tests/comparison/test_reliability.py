"""How far candidates' means tell them apart."""

import numpy as np
import pytest

from evomerge.comparison.reliability import split_half


def scores(*, candidates: int, items: int, between: float, seed: int = 0) -> np.ndarray:
    """Return a matrix in which each score has its candidate's level (s.d. `between`) and noise (s.d. 1)."""
    rng = np.random.default_rng(seed)
    return between * rng.normal(size=(candidates, 1)) + rng.normal(size=(candidates, items))


@pytest.mark.parametrize(("between", "items"), [(0.1, 50), (0.1, 200), (0.3, 50)])
def test_it_is_the_share_of_true_variance(between: float, items: int) -> None:
    found = split_half(scores(candidates=3000, items=items, between=between))
    assert found == pytest.approx(between**2 / (between**2 + 1 / items), abs=0.04)


def test_luck_alone_is_not_reliable() -> None:
    assert split_half(scores(candidates=3000, items=50, between=0)) < 0.05


def test_where_nothing_can_be_told_it_is_0() -> None:
    told_apart = scores(candidates=3, items=10, between=5)
    assert split_half(told_apart) > 0.9
    assert split_half(told_apart[:2]) == 0
    assert split_half(told_apart[:, :1]) == 0
    assert split_half(np.ones((5, 10))) == 0
    assert split_half([[1, 0, 1, 0], [0, 1, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]) == 0
