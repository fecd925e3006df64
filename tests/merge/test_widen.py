"""WIDEN: scores of columns by rank within a model and softmax between models."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors

Array = np.ndarray[Any, np.dtype[np.float64]]


def example(*shape: int, count: int = 3) -> tuple[Tensor, list[Tensor]]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(shape, generator=generator)
    return base, [
        base
        + 0.1 * (i + 1) * torch.randn(shape, generator=generator) * torch.rand(shape, generator=generator)
        for i in range(count)
    ]


def merge(
    base: Tensor, models: list[Tensor], params: dict[str, Any] | None = None, *, name: str = "w"
) -> Tensor:
    return merge_tensors("widen", {name: base}, [{name: model} for model in models], params or {})[name]


def scored(significance: Array, t: float, s: float) -> Array:
    raised = np.exp(significance)
    bar = t * significance.mean(axis=1, keepdims=True)
    return np.where(significance > bar, s, raised / raised.sum(axis=0))


def ranked(values: Array) -> Array:
    found = np.empty_like(values)
    for row, value in zip(found, values, strict=True):
        row[np.argsort(value, kind="stable")] = np.arange(len(value)) / len(value)
    return found


def by_columns(base: Tensor, models: list[Tensor], *, t: float = 1.0, s: float = 1.0) -> Tensor:
    """Return the merge of matrices `(out, in)` by the definition; zero columns do not turn."""
    before = base.double().numpy()
    after = [model.double().numpy() for model in models]
    norms = [np.linalg.norm(x, axis=0) for x in (before, *after)]
    length = np.stack([np.abs(norm - norms[0]) for norm in norms[1:]])
    direction = np.zeros_like(length)
    for i, (x, norm) in enumerate(zip(after, norms[1:], strict=True)):
        there = norm * norms[0] > 0
        direction[i, there] = 1 - (x * before).sum(axis=0)[there] / (norm * norms[0])[there]
    weight = (scored(ranked(length), t, s) + scored(ranked(direction), t, s)) / 2
    merged = before + sum((x - before) * w for x, w in zip(after, weight, strict=True))
    return torch.from_numpy(merged)


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "t", "s"),
    [
        ({}, 1.0, 1.0),
        ({"above_average_ratio": 0.7, "score": 0.5}, 0.7, 0.5),
        ({"t": 1.5, "s": 1.2}, 1.5, 1.2),
        ({"above_average_value_ratio": 0.0, "score_calibration_value": 0.3}, 0.0, 0.3),
    ],
)
def test_matrices_are_weighed_by_column(words: dict[str, Any], t: float, s: float) -> None:
    base, models = example(5, 8)
    close(merge(base, models, words), by_columns(base, models, t=t, s=s))


def test_an_embedding_is_weighed_by_token_and_a_head_is_not() -> None:
    base, models = example(8, 5)
    found = merge(base, models, name="model.embed_tokens.weight")
    close(found, by_columns(base.T, [model.T for model in models]).T)
    close(merge(base, models, name="lm_head.weight"), by_columns(base, models))


def test_experts_are_weighed_each_for_itself() -> None:
    base, models = example(2, 5, 8)
    found = merge(base, models)
    for i in range(2):
        close(found[i], by_columns(base[i], [model[i] for model in models]))


def test_vectors_are_weighed_by_the_size_of_their_change() -> None:
    base, models = example(9)
    changes = np.stack([(model - base).double().numpy() for model in models])
    weight = scored(np.abs(changes), 1.2, 0.7)
    expected = base.double() + torch.from_numpy((changes * weight).sum(axis=0))
    close(merge(base, models, {"t": 1.2, "s": 0.7}), expected)


def test_of_equal_columns_the_first_ranks_lower() -> None:
    base = torch.ones(2, 4)
    model = base + torch.tensor([0.25, 0.25, 0.25, 0.25])  # lengths alone differ, and all alike
    found = merge(base, [model], {"score": 0.5})
    close(found, 1 + 0.25 * torch.tensor([1.0, 1.0, 0.5, 0.5]).expand(2, 4))


@pytest.mark.parametrize("t", [1.0, 0.8, 1.2])
def test_a_column_at_the_bar_is_not_above_it_wherever_it_stands(t: float) -> None:
    columns = 7 if t == 1 else 6  # rank 3 is the average of seven; rank 2 or 3 is t times that of six
    base, models = example(5, columns, count=2)
    want = merge(base, models, {"t": t, "s": 5.0})
    generator = torch.Generator().manual_seed(1)
    for _ in range(30):
        order = torch.randperm(columns, generator=generator)
        found = merge(base[:, order], [model[:, order] for model in models], {"t": t, "s": 5.0})
        torch.testing.assert_close(found, want[:, order], rtol=1e-6, atol=1e-6)


def test_columns_of_zeros_have_no_direction() -> None:
    base, models = example(5, 8)
    base[:, 2] = 0.0
    models[0][:, 2] = 0.0
    models[1][:, 3] = 0.0
    close(merge(base, models), by_columns(base, models))


def test_a_column_that_stayed_is_at_the_bottom_of_its_model() -> None:
    base, (model,) = example(5, 8, count=1)
    model[:, 6] = base[:, 6]
    rival = base + 1.0
    found = merge(base, [model, rival], {"score": 0.0, "t": 10.0})
    expected = by_columns(base, [model, rival], s=0.0, t=10.0)  # numpy ranks it by rounding, or last
    close(found[:, 6], expected[:, 6])


def test_directions_of_small_changes_are_told_apart() -> None:
    base = torch.ones(4, 6)
    model = base.clone()
    for column in range(6):
        model[0, column] += (6 - column) * 2**-20
        model[1, column] -= (6 - column) * 2**-20
    found = merge(base, [model], {"score": 0.5})
    weight = (found - base)[0] / (model - base)[0]
    assert torch.equal(weight[:3] < weight[3:], torch.ones(3, dtype=torch.bool))
