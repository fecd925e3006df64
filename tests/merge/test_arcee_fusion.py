"""Arcee Fusion: which entries are important."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.errors import MergeError
from evomerge.merge.methods import arcee_fusion


def pair(*shape: int, size: float = 0.3) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.randn(shape, generator=generator)
    change = torch.randn(shape, generator=generator) * torch.rand(shape, generator=generator) ** 3
    return base, base + size * change


def merge(base: Tensor, model: Tensor) -> Tensor:
    return merge_tensors("arcee_fusion", {"w": base}, [{"w": model}], {})["w"]


def important(base: Tensor, model: Tensor) -> np.ndarray[Any, np.dtype[np.bool_]]:
    def softmax(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        raised = np.exp(x - x.max(axis=-1, keepdims=True))
        return np.asarray(raised / raised.sum(axis=-1, keepdims=True))

    before, after = base.double().numpy(), model.double().numpy()
    p, q = softmax(after) + 1e-8, softmax(before) + 1e-8
    value = np.abs(after - before) * (p * np.log(p / q)).sum(axis=-1, keepdims=True)
    ordered = np.sort(value.ravel())
    low, middle, high = (ordered[int(share * (ordered.size - 1))] for share in (0.25, 0.5, 0.75))
    return np.asarray(value >= middle + 1.5 * (high - low))


@pytest.mark.parametrize("shape", [(6, 12), (31,), (2, 5, 7), (1, 4), (200, 3)])
@pytest.mark.parametrize("block", [5, 1 << 22])
def test_takes_the_important_entries_and_no_others(
    shape: tuple[int, ...], block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arcee_fusion, "_BLOCK", block)
    base, model = pair(*shape)
    mask = torch.from_numpy(important(base, model))
    assert bool(mask.any())
    assert not bool(mask.all())
    found = merge(base, model)
    torch.testing.assert_close(found, torch.where(mask, model, base), rtol=0, atol=1e-6)
    assert torch.equal(found != base, mask & (model != base))


def test_a_sparse_change_is_taken_whole() -> None:
    base, model = pair(8, 8)
    model[:, 1:] = base[:, 1:]
    torch.testing.assert_close(merge(base, model), model, rtol=0, atol=1e-6)


def test_what_is_as_important_as_all_else_is_taken() -> None:
    model = torch.tensor([[0.5, -0.5]]).expand(3, 2).contiguous()
    assert torch.equal(merge(torch.zeros(3, 2), model), model)


def test_a_large_tensor_has_one_result() -> None:
    base, model = pair(1001, 1001, size=0.01)
    assert torch.equal(merge(base, model), merge(base, model))
    assert torch.equal(merge(base, model) != base, torch.from_numpy(important(base, model)) & (model != base))


@pytest.mark.parametrize("count", [2, 3])
def test_takes_one_source(count: int) -> None:
    with pytest.raises(MergeError, match=f"exactly 1 model\\(s\\), found {count}"):
        merge_tensors("arcee_fusion", {"w": torch.ones(2)}, [{"w": torch.ones(2)}] * count, {})
