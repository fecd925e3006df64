"""Exactly the largest entries stay."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evomerge.merge.kernels.trimming import global_cut, kept_count, trim, trim_at

few = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.0000001, 2.5, -2.5, 1e-40, 3e38])
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)
vectors = st.lists(few, min_size=1, max_size=12) | st.lists(floats, min_size=1, max_size=12)


@pytest.mark.parametrize(
    ("density", "size", "count"),
    [(0.29, 45, 13), (0.2, 60, 12), (1.0, 7, 7), (1.5, 7, 7), (0.0, 7, 0), (0.1, 5, 0), (0.5, 0, 0)],
)
def test_kept_count_truncates(density: float, size: int, count: int) -> None:
    assert kept_count(density, size) == count


@settings(deadline=None, derandomize=True, max_examples=60)
@given(vectors, st.integers(min_value=0, max_value=14))
def test_trim_keeps_the_first_of_a_stable_sort(values: list[float], count: int) -> None:
    delta = torch.tensor(values)
    order = delta.abs().sort(descending=True, stable=True).indices
    expected = torch.zeros_like(delta)
    expected[order[:count]] = delta[order[:count]]
    assert torch.equal(trim(delta, count), expected)


def test_trim_prefers_the_lower_flat_index_among_ties() -> None:
    delta = torch.tensor([[1.0, -2.0], [2.0, -1.0], [1.0, 2.0]])
    assert torch.equal(trim(delta, 2), torch.tensor([[0.0, -2.0], [2.0, 0.0], [0.0, 0.0]]))
    assert torch.equal(trim(delta, 4), torch.tensor([[1.0, -2.0], [2.0, 0.0], [0.0, 2.0]]))


def test_trim_at_keeps_all_ties_without_a_limit() -> None:
    delta = torch.tensor([1.0, -2.0, 2.0, 3.0])
    assert torch.equal(trim_at(delta, 2.0, None), torch.tensor([0.0, -2.0, 2.0, 3.0]))
    assert torch.equal(trim_at(delta, 2.0, 0), torch.tensor([0.0, 0.0, 0.0, 3.0]))


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.lists(vectors, min_size=1, max_size=4), st.data())
def test_global_cut_is_the_kth_largest_of_all_tensors(
    tensors: list[list[float]], data: st.DataObject
) -> None:
    whole = torch.cat([torch.tensor(values) for values in tensors]).abs()
    count = data.draw(st.integers(min_value=1, max_value=len(whole)))
    cut = global_cut(lambda: map(torch.tensor, tensors), count)
    ranked = whole.sort(descending=True).values
    assert cut.threshold == float(ranked[count - 1])
    assert cut.above == int((whole > ranked[count - 1]).sum())


def test_global_cut_holds_one_tensor_at_a_time_and_passes_twice() -> None:
    passes: list[int] = []

    def tensors() -> Iterator[Tensor]:
        passes.append(0)
        for part in torch.arange(1.0, 9.0).reshape(4, 2):
            passes[-1] += 1
            yield part

    assert global_cut(tensors, 3).threshold == 6.0
    assert passes == [4, 4]


def test_global_cut_takes_empty_tensors_and_scalars() -> None:
    cut = global_cut(lambda: iter([torch.empty(0, 3), torch.tensor(-4.0), torch.ones(2)]), 1)
    assert (cut.threshold, cut.above) == (4.0, 0)
