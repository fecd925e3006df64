"""NearSwap and RAM: rules entry by entry."""

import pytest
import torch

from evomerge import merge_tensors
from evomerge.errors import MergeError

CHANGE = torch.tensor([0.0, 5e-7, -1e-4, 2e-3, -1.0])


def swap(t: float, base: float = 0.0) -> torch.Tensor:
    start = torch.full_like(CHANGE, base)
    return merge_tensors("nearswap", {"w": start}, [{"w": start + CHANGE}], {"t": t})["w"]


def test_near_entries_are_taken_and_far_ones_move_as_much() -> None:
    expected = torch.tensor([0.0, 5e-7, -1e-4, 1e-3, -1e-3])
    torch.testing.assert_close(swap(1e-3), expected, rtol=1e-5, atol=0)


def test_a_limit_below_the_smallest_change_takes_a_part_of_it() -> None:
    expected = torch.tensor([0.0, 5e-8, -1e-7, 1e-7, -1e-7])
    torch.testing.assert_close(swap(1e-7), expected, rtol=1e-5, atol=0)


def test_starts_from_the_base_and_ends_at_the_source() -> None:
    assert torch.equal(swap(0.0, base=2.0), torch.full_like(CHANGE, 2.0))
    torch.testing.assert_close(swap(2.0, base=2.0), 2.0 + CHANGE)


def test_takes_one_source_and_no_negative_limit() -> None:
    with pytest.raises(MergeError, match="exactly 1"):
        merge_tensors("nearswap", {"w": CHANGE}, [{"w": CHANGE}] * 2, {})
    with pytest.raises(MergeError, match="`limit` must be at least 0"):
        swap(-1e-3)


def test_t_is_another_word_for_the_limit() -> None:
    ours = merge_tensors("nearswap", {"w": 0 * CHANGE}, [{"w": CHANGE}], {"limit": 1e-3})["w"]
    assert torch.equal(ours, swap(1e-3))
