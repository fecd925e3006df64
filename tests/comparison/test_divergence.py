"""The distance of two fingerprints."""

import math

import numpy as np
import pytest

from evomerge.comparison.divergence import divergences

ONE = [[-1.0, -2.0, -12.0], [0.0, 0.0, 0.0]]


def test_it_is_nothing_to_itself_and_log_2_to_what_has_nothing_in_common() -> None:
    other = [[-80.0, -80.0, 0.0], [0.0, -80.0, -80.0]]
    opposite = [[0.0, -80.0, -80.0], [-80.0, 0.0, -80.0]]
    found = divergences(other, [other, opposite])
    assert found[0] == 0.0
    assert found[1] == pytest.approx(math.log(2))


def test_it_is_the_formula_of_renormalised_rows() -> None:
    other = [[-2.0, -1.0, -12.0], [0.0, -1.0, 0.0]]
    p, q = (np.exp(rows) / np.exp(rows).sum(-1, keepdims=True) for rows in (np.array(ONE), np.array(other)))
    m = (p + q) / 2
    expected = ((p * np.log(p / m)).sum(-1) + (q * np.log(q / m)).sum(-1)).mean() / 2
    found = divergences(ONE, [other, ONE])
    np.testing.assert_allclose(found, [expected, 0.0], rtol=1e-12)
    np.testing.assert_allclose(divergences(other, [ONE]), [expected], rtol=1e-12)


def test_a_factor_common_to_all_tokens_does_not_count() -> None:
    lower = [[value - 3.0 for value in row] for row in ONE]
    assert divergences(ONE, [lower])[0] < 1e-15


def test_small_differences_are_seen() -> None:
    near = [[-1.0 + 1e-5, *ONE[0][1:]], ONE[1]]
    assert 1e-13 < divergences(ONE, [near])[0] < 1e-10
