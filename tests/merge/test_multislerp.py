"""Multi-SLERP: mean direction times mean length."""

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


def merge(models: list[Tensor], params: dict[str, Any], *, base: Tensor | None = None) -> Tensor:
    template = None if base is None else {"w": base}
    return merge_tensors("multislerp", template, [{"w": model} for model in models], params)["w"]


def tangent_form(models: list[Tensor], weight: list[float], eps: float = 1e-8) -> np.ndarray[Any, Any]:
    """Return what mergekit's description says: from the mean direction along the mean tangent."""
    x = np.stack([model.double().numpy().ravel() for model in models])
    w = np.array(weight)
    norms = np.linalg.norm(x, axis=1)
    units = x / (norms + eps)[:, None]
    mean = w @ units / np.linalg.norm(w @ units)
    tangent = w @ (units - np.outer(units @ mean, mean))
    size = np.linalg.norm(tangent)
    point = np.cos(size) * mean + (np.sin(size) / size * tangent if size > 1e-15 else 0.0)
    return np.asarray(point * (w @ norms)).reshape(models[0].shape)


def close(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(found.double(), torch.as_tensor(expected).double(), rtol=1e-6, atol=1e-6)


def test_is_the_tangent_step_that_mergekit_describes() -> None:
    models = tensors(4, 3, 5)
    found = merge(models, {"weight": [1, 2, 3, 4]})
    close(found, tangent_form(models, [0.1, 0.2, 0.3, 0.4]))


def test_weights_are_shares_unless_told_otherwise() -> None:
    models = tensors(3, 6)
    raw = {"weights": [0.4, 0.5, 0.6], "normalize_weights": False}
    close(merge(models, raw), 1.5 * merge(models, {"weight": [0.4, 0.5, 0.6]}))


def test_with_a_base_it_merges_task_vectors() -> None:
    base, *models = tensors(4, 6)
    expected = base.double().numpy() + tangent_form([model - base for model in models], [0.25, 0.25, 0.5])
    close(merge(models, {"weight": [1, 1, 2]}, base=base), expected)


@pytest.mark.parametrize("normalize", [True, False])
def test_one_model_is_returned_unchanged(normalize: bool) -> None:
    (model,) = tensors(1, 6)
    assert torch.equal(merge([model], {"weight": 0.3, "normalize": normalize}), model)


def test_eps_is_added_to_lengths() -> None:
    models = [torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1e-6])]
    expected = np.array([1 / (1 + 1e-6), 0.5])
    expected *= (1 + 1e-6) / 2 / np.linalg.norm(expected)
    close(merge(models, {"eps": 1e-6}), expected)


def test_two_opposite_models_take_the_chord() -> None:
    (model,) = tensors(1, 6)
    close(merge([model, -3 * model], {}), -model)


def test_more_models_whose_directions_cancel_are_refused_by_name() -> None:
    (model,) = tensors(1, 6)
    with pytest.raises(MergeError, match="the directions of `w` cancel out"):
        merge([model, -3 * model, 2 * model], {"weight": [1, 2, 1]})


def test_more_models_that_are_the_base_are_the_base() -> None:
    (base,) = tensors(1, 6)
    assert torch.equal(merge([base.clone()] * 3, {}, base=base), base)


def test_a_model_without_length_only_shortens() -> None:
    models = tensors(2, 6)
    with_zero = merge([*models, torch.zeros(6)], {"weight": [1, 1, 2]})
    close(with_zero, merge(models, {}) / 2)


def test_weights_that_sum_to_zero_cannot_be_normalised() -> None:
    with pytest.raises(MergeError, match="weights of `w` sum to 0"):
        merge(tensors(2, 6), {"weight": [1, -1]})
    assert torch.isfinite(merge(tensors(2, 6), {"weight": [1, -1], "normalize": False})).all()
