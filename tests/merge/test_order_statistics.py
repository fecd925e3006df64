"""Order statistics of streamed vectors are those of a sort."""

from collections.abc import Iterator

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evomerge.merge.kernels import order_statistics as counting
from evomerge.merge.kernels.order_statistics import order_statistics

few = st.sampled_from([0.0, -0.0, 1.0, -1.0, 1.0000001, -1.0000001, 2.5, 1e-40, -1e-40, 3e38, -3e38])
floats = st.floats(width=32, allow_nan=False, allow_infinity=False)


@settings(deadline=None, derandomize=True, max_examples=15)
@given(
    sizes=st.lists(st.integers(min_value=0, max_value=6), min_size=1, max_size=3).filter(any),
    entries=st.sampled_from([few, floats]),
    short=st.sampled_from([0, 100]),
    data=st.data(),
)
def test_every_rank_of_every_vector_is_that_of_a_sort(
    sizes: list[int], entries: st.SearchStrategy[float], short: int, data: st.DataObject
) -> None:
    """Both where vectors are held (`short` enough) and where they are counted."""
    size = sum(sizes)
    whole = torch.tensor(
        data.draw(st.lists(st.lists(entries, min_size=size, max_size=size), min_size=2, max_size=2))
    )
    ranks = list(range(-size, size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "_SHORT", short)
        found = order_statistics(lambda: iter(torch.split(whole, sizes, dim=1)), [ranks, ranks])
    for vector, row in zip(whole, found, strict=True):
        ordered = vector.sort().values
        for rank, each in zip(ranks, row, strict=True):
            assert each.value == float(ordered[rank])
            assert each.above == int((vector > ordered[rank]).sum())


def test_vectors_have_ranks_of_their_own_or_none() -> None:
    found = order_statistics(lambda: iter([torch.tensor([[3.0, -1.0], [7.0, 8.0]])]), [[0, -1], []])
    assert [[each.value for each in row] for row in found] == [[-1.0, 3.0], []]


def test_long_tensors_are_counted_in_full() -> None:
    long = torch.randn(1, 600_001, generator=torch.Generator().manual_seed(1))
    ((found,),) = order_statistics(lambda: iter([long]), [[123_456]])
    assert found.value == float(long.flatten().sort().values[123_456])


def test_one_tensor_is_held_at_a_time_in_two_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_SHORT", 3)
    passes: list[int] = []

    def tensors() -> Iterator[Tensor]:
        passes.append(0)
        for part in torch.arange(1.0, 9.0).reshape(4, 1, 2):
            passes[-1] += 1
            yield part

    ((found,),) = order_statistics(tensors, [[5]])
    assert found.value == 6.0
    assert passes == [2, 4, 4]  # two parts show that it is too long to hold


def test_scalars_and_empty_tensors_count_too() -> None:
    parts = [torch.empty(1, 0, 3), torch.tensor([-4.0]), torch.ones(1, 2)]
    ((least, greatest),) = order_statistics(lambda: iter(parts), [[0, 2]])
    assert (least.value, least.above) == (-4.0, 2)
    assert (greatest.value, greatest.above) == (1.0, 0)


@pytest.mark.parametrize("rank", [3, -4])
@pytest.mark.parametrize("short", [0, 100])
def test_a_rank_that_is_not_there_is_an_error(rank: int, short: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "_SHORT", short)
    with pytest.raises(IndexError, match=f"no rank {rank} among 3 entries"):
        order_statistics(lambda: iter([torch.ones(1, 3)]), [[rank]])
