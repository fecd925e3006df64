"""Exactly the largest entries stay."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from evomerge.merge.kernels.trimming import global_cuts, kept_count, share_out, trim, trim_at
from evomerge.merge.method import Site, View

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


def test_global_cuts_are_the_kth_largest_magnitudes_of_all_tensors() -> None:
    parts = [torch.tensor([[3.0, -1.0], [0.0, 2.0]]), torch.tensor([[-5.0, 3.0, 4.0], [2.0, 2.0, -2.0]])]
    first, second = global_cuts(lambda: iter(parts), [3, 2])
    assert (first.value, first.above) == (3.0, 2)
    assert (second.value, second.above) == (2.0, 0)


def test_nothing_exceeds_the_cut_of_a_vector_of_which_nothing_is_kept() -> None:
    none, one = global_cuts(lambda: iter([torch.tensor([[3.0, -1.0], [0.0, 2.0]])]), [0, 1])
    assert (none.value, none.above) == (float("inf"), 0)
    assert (one.value, one.above) == (2.0, 0)


def test_ties_are_shared_out_by_the_names_of_the_tensors() -> None:
    tensors = {"b": torch.tensor([[1.0, -1.0, 2.0]]), "a": torch.tensor([[1.0, 0.0]])}

    def stream() -> Iterator[View]:
        for name, value in tensors.items():
            site = Site(tensor=name, sources=("m",), seed=0)
            yield View(site=site, shape=tuple(value.shape[1:]), load=value.clone)

    cuts = global_cuts(lambda: iter(tensors.values()), [3])
    assert share_out(stream, cuts, [3]) == {"a": (1,), "b": (1,)}
    cuts = global_cuts(lambda: iter(tensors.values()), [0])
    assert share_out(stream, cuts, [0]) == {"a": (0,), "b": (0,)}
