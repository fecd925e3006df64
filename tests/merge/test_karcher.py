"""The Karcher mean."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.errors import MergeError


def tensors(count: int, *shape: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator) * (i + 1) for i in range(count)]


def merge(models: list[Tensor], params: dict[str, Any] | None = None) -> Tensor:
    return merge_tensors("karcher", None, [{"w": model} for model in models], params or {})["w"]


def in_full(models: list[Tensor], alpha: list[float], *, max_iter: int = 10, tol: float = 1e-5) -> Tensor:
    """Return the mean by the same iteration, on the vectors themselves."""
    x = np.stack([model.double().numpy().ravel() for model in models])
    a = np.array(alpha)
    norms = np.linalg.norm(x, axis=1)
    ok = norms > tol
    units, share = x[ok] / norms[ok, None], a[ok] / a[ok].sum()
    u = share @ units
    u = u / np.linalg.norm(u) if np.linalg.norm(u) >= tol else units[0]
    for _ in range(max_iter):
        step = np.zeros_like(u)
        for unit, each in zip(units, share, strict=True):
            d = float(np.clip(u @ unit, -1, 1))
            if math.acos(d) >= tol:
                step += each * math.acos(d) / math.sin(math.acos(d)) * (unit - d * u)
        size = np.linalg.norm(step)
        if size < tol:
            break
        u = np.cos(size) * u + np.sin(size) * step / size
        u = u / np.linalg.norm(u)
    return torch.from_numpy(u * (a @ norms)).reshape(models[0].shape)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("max_iter", [0, 1, 3, 10])
def test_is_the_iteration_on_the_vectors(max_iter: int) -> None:
    models = tensors(4, 3)
    found = merge(models, {"weight": [1, 2, 3, 4], "max_iter": max_iter})
    close(found, in_full(models, [0.1, 0.2, 0.3, 0.4], max_iter=max_iter))


def test_stops_where_a_step_is_below_the_tolerance() -> None:
    models = tensors(3, 3)
    shares = [1 / 3] * 3
    close(merge(models, {"tol": 1e-1}), in_full(models, shares, tol=1e-1))
    assert not torch.allclose(merge(models, {"tol": 1e-1}), merge(models), atol=1e-3)


def test_uniform_weights_are_the_default_and_alphas_another_word() -> None:
    models = tensors(3, 4)
    assert torch.equal(merge(models), merge(models, {"weight": 0.7}))
    assert torch.equal(merge(models, {"alphas": [2, 5, 3]}), merge(models, {"weight": [0.2, 0.5, 0.3]}))


def test_two_models_meet_halfway_on_the_arc_at_their_mean_length() -> None:
    a, b = torch.tensor([2.0, 0.0]), torch.tensor([0.0, 6.0])
    close(merge([a, b]), torch.full((2,), 4 * math.sqrt(0.5)))


def test_the_mean_balances_arcs_not_chords() -> None:
    angles = (0.0, 0.2, 2.0)  # on a circle the mean is the mean angle
    models = [torch.tensor([math.cos(angle), math.sin(angle)]) for angle in angles]
    mean = sum(angles) / 3
    close(merge(models, {"tol": 1e-9}), torch.tensor([math.cos(mean), math.sin(mean)]))


def test_one_model_is_copied() -> None:
    (model,) = tensors(1, 4)
    assert torch.equal(merge([model], {"weight": 0.4}), model)
    assert torch.equal(merge([1e-7 * model]), 1e-7 * model)


def test_a_model_without_length_shortens_the_mean_without_turning_it() -> None:
    models = tensors(3, 4)
    found = merge([*models, torch.zeros(4)], {"weight": [0.1, 0.3, 0.2, 0.4]})
    close(found, in_full([*models, torch.zeros(4)], [0.1, 0.3, 0.2, 0.4]))
    close(found, 0.6 * merge(models, {"weight": [0.1, 0.3, 0.2]}))


@pytest.mark.parametrize("weight", [(0.5, 0.5), (1.0, 0.0)])
def test_models_without_length_merge_to_zeros(weight: tuple[float, float]) -> None:
    assert torch.equal(merge([torch.zeros(4), torch.full((4,), 1e-6)], {"weight": weight}), torch.zeros(4))


def test_no_weight_on_what_has_length_is_zero() -> None:
    assert torch.equal(merge([torch.zeros(4), torch.ones(4)], {"weight": [1.0, 0.0]}), torch.zeros(4))


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("tol", [1e-12, 1e-5])
def test_opposite_models_give_something_finite_of_the_mean_length(count: int, tol: float) -> None:
    model, other, _ = tensors(3, 4)
    found = merge([model, -model, other][:count], {"tol": tol})
    length = sum(float(x.norm()) for x in [model, -model, other][:count]) / count
    assert float(found.norm()) == pytest.approx(length, rel=1e-5)


def test_a_model_opposite_to_where_the_mean_stands_pulls_nowhere() -> None:
    for model in tensors(20, 7):
        close(merge([model, -3 * model], {"weight": [0.6, 0.4]}), 1.8 * model)


def test_siblings_that_differ_in_the_last_bits_keep_their_precision() -> None:
    (model,) = tensors(1, 10_000)
    siblings = [model + 1e-4 * noise for noise in tensors(3, 10_000)]
    error = merge(siblings).double() - in_full(siblings, [1 / 3] * 3)
    assert float(error.abs().max()) < 1e-6


@pytest.mark.parametrize(
    ("params", "message"),
    [({"weight": [1, -1]}, "`weight` must be at least 0"), ({"weight": 0.0}, "weights of `w` sum to 0")],
)
def test_weights_that_mean_nothing_are_refused(params: dict[str, Any], message: str) -> None:
    with pytest.raises(MergeError, match=message):
        merge(tensors(2, 4), params)
