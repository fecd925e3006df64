import numpy as np
import pytest
from numpy.typing import NDArray

from evomerge.comparison.smoothing import smoothed


def _hill(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(1 - (points**2).sum(axis=1) / 10)


@pytest.mark.parametrize("seed", range(5))
def test_smoothing_takes_noise_out(seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = rng.normal(size=(80, 4))
    deviations = np.where(rng.random(80) < 0.5, 0.5, 0.1)
    noisy = _hill(points) + rng.normal(size=80) * deviations
    left = smoothed(points, noisy, deviations**2) - _hill(points)
    assert np.std(left) < np.std(noisy - _hill(points)) / 2


def test_smoothing_leaves_values_without_noise_as_they_are() -> None:
    points = np.random.default_rng(0).normal(size=(60, 3))
    values = _hill(points)
    assert smoothed(points, values, np.zeros(60)) == pytest.approx(values, abs=1e-3)


def test_smoothing_finds_noise_that_nobody_told_of() -> None:
    rng = np.random.default_rng(1)
    points = rng.normal(size=(100, 2))
    noisy = _hill(points) + rng.normal(size=100) * 0.3
    assert np.std(smoothed(points, noisy, np.zeros(100)) - _hill(points)) < 0.15


@pytest.mark.parametrize("unit", [1e-9, 1e9])
def test_smoothing_does_not_depend_on_the_unit(unit: float) -> None:
    rng = np.random.default_rng(2)
    points, variances = rng.normal(size=(30, 3)), rng.random(30)
    values = _hill(points) + rng.normal(size=30) * np.sqrt(variances)
    scaled = smoothed(points, unit * values, unit**2 * variances)
    assert scaled / unit == pytest.approx(smoothed(points, values, variances))


def test_smoothing_returns_what_it_has_nothing_to_say_about() -> None:
    points = np.zeros((3, 2))
    assert smoothed(points, np.array([1.0, 2.0, 3.0]), np.ones(3)).tolist() == [1.0, 2.0, 3.0]
    assert smoothed(np.zeros((9, 2)), np.full(9, 0.5), np.ones(9)).tolist() == [0.5] * 9


def test_smoothing_survives_points_that_coincide() -> None:
    values = np.array([0.0, 1.0] * 5)
    assert smoothed(np.zeros((10, 2)), values, np.zeros(10)) == pytest.approx(np.full(10, 0.5), abs=0.01)
