"""Model Stock: how far to go from the base to the mean."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.errors import MergeError


def deltas(count: int, *shape: int, size: float = 0.1) -> list[Tensor]:
    """Return task vectors with a common part, on a grid so that adding them to a base is exact."""
    generator = torch.Generator().manual_seed(0)
    common = torch.randn(shape, generator=generator)
    found = [size * (common + torch.randn(shape, generator=generator)) for _ in range(count)]
    return [(delta / size * 2**10).round() * (size * 2**-10) for delta in found]


def merge(changes: list[Tensor], params: dict[str, Any] | None = None, *, compat: str = "evomerge") -> Tensor:
    """Return what the merge adds to a base of zeros."""
    base = {"w": torch.zeros_like(changes[0])}
    return merge_tensors("model_stock", base, [{"w": x} for x in changes], params or {}, compat=compat)["w"]


def ratio(changes: list[Tensor], *, mean: str = "cosine", floor: float = 0.0, eps: float = 0.0) -> float:
    """Return t for task vectors as single vectors, by the definition."""
    x = [change.double().numpy().ravel() for change in changes]
    cosines = [
        np.clip(a @ b / (max(float(np.linalg.norm(a) * np.linalg.norm(b)), floor) + eps), -1, 1)
        for a, b in itertools.combinations(x, 2)
    ]
    c = np.cos(np.mean(np.arccos(cosines))) if mean == "angle" else np.mean(cosines)
    return float(len(x) * c / (1 + (len(x) - 1) * c + eps))


def close(found: Tensor, expected: Tensor, rtol: float = 1e-5) -> None:
    torch.testing.assert_close(found, expected.float(), rtol=rtol, atol=1e-12)


@pytest.mark.parametrize("count", [2, 3, 4])
def test_goes_as_far_as_the_mean_cosine_says(count: int) -> None:
    changes = deltas(count, 4, 6)
    close(merge(changes), torch.stack(changes).mean(0) * ratio(changes))


def test_starts_from_the_base() -> None:
    changes = deltas(2, 4, 6)
    base = torch.full((4, 6), 3.0)
    models = [{"w": base + change} for change in changes]
    close(merge_tensors("model_stock", {"w": base}, models, {})["w"], base + merge(changes))


def test_filter_wise_takes_an_angle_per_row() -> None:
    changes = deltas(3, 4, 6)
    found = merge(changes, {"filter_wise": True})
    for i in range(4):
        close(found[i], merge([change[i] for change in changes]))
    assert not torch.allclose(found, merge(changes), rtol=1e-2)


def test_filter_wise_a_vector_is_one_row_and_an_expert_has_rows() -> None:
    vectors, experts = deltas(3, 6), deltas(3, 2, 4, 6)
    assert torch.equal(merge(vectors, {"filter_wise": True}), merge(vectors))
    flat = merge([x.reshape(8, 6) for x in experts], {"filter_wise": True})
    assert torch.equal(merge(experts, {"filter_wise": True}).reshape(8, 6), flat)


def test_small_task_vectors_have_angles_but_not_in_mergekit() -> None:
    changes = deltas(2, 16, size=2**-14)
    mean = torch.stack(changes).mean(0)
    assert 1e-8 < float(changes[0].norm() * changes[1].norm()) < 1e-6
    close(merge(changes), mean * ratio(changes))
    close(merge(changes, compat="mergekit"), mean * ratio(changes, floor=1e-6))
    assert ratio(changes, floor=1e-6) < 0.5 * ratio(changes)


def test_fusion_bench_averages_angles_and_adds_a_little() -> None:
    changes = deltas(3, 16)
    changes[2] = changes[0] * 0.9
    mean = torch.stack(changes).mean(0)
    close(merge(changes, compat="fusion_bench"), mean * ratio(changes, mean="angle", eps=1e-8))
    assert not torch.allclose(merge(changes, compat="fusion_bench"), merge(changes), rtol=1e-3)
    small = [change * 2**-13 for change in changes]
    close(merge(small, compat="fusion_bench"), mean * 2**-13 * ratio(small, mean="angle", eps=1e-8), 1e-4)


def test_opposed_task_vectors_stay_at_the_base_but_cross_it_elsewhere() -> None:
    changes = [torch.tensor([1.0, 0.0]), torch.tensor([-0.5, 0.5])]
    assert torch.equal(merge(changes), torch.zeros(2))
    beyond = torch.stack(changes).mean(0) * ratio(changes)
    assert ratio(changes) < 0
    for compat in ("mergekit", "fusion_bench"):
        close(merge(changes, compat=compat), beyond)
        assert torch.equal(merge(changes, {"clamp_t": True}, compat=compat), torch.zeros(2))
    close(merge(changes, {"clamp_t": "none"}), beyond)


@pytest.mark.parametrize("compat", ["evomerge", "mergekit", "fusion_bench"])
def test_no_angle_gives_the_base(compat: str) -> None:
    change = torch.tensor([3.0, 4.0])  # a length without rounding, so the cosine is exactly −1
    assert torch.equal(merge([change, -change], {"clamp_t": "none"}, compat=compat), torch.zeros(2))
    assert torch.equal(merge([torch.zeros(2)] * 3, compat=compat), torch.zeros(2))
    close(merge([torch.zeros(2), change], compat=compat), torch.zeros(2))


def test_a_model_that_is_the_base_stands_at_a_right_angle() -> None:
    changes = [*deltas(2, 6), torch.zeros(6)]
    close(merge(changes), torch.stack(changes).mean(0) * ratio(changes, floor=1e-30))


def test_equal_task_vectors_are_taken_whole() -> None:
    change = torch.tensor([1.0, 2.0])
    assert torch.equal(merge([change, change.clone()]), change)


def test_t_scale_multiplies_the_way() -> None:
    changes = deltas(3, 4, 6)
    close(merge(changes, {"t_scale": 1.3}), 1.3 * merge(changes))


def test_one_model_is_refused() -> None:
    with pytest.raises(MergeError, match="at least 2 model"):
        merge(deltas(1, 4))
