"""Spherical interpolation."""

import math

import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.errors import MergeError


def slerp(start: Tensor, end: Tensor, t: float) -> Tensor:
    return merge_tensors("slerp", {"w": start}, [{"w": end}], {"t": t})["w"]


@pytest.mark.parametrize("t", [0.0, 0.25, 0.5, 1.0])
def test_follows_the_arc_at_constant_speed(t: float) -> None:
    found = slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), t)
    angle = t * math.pi / 2
    torch.testing.assert_close(found, torch.tensor([math.cos(angle), math.sin(angle)]), rtol=0, atol=1e-7)


def test_angles_are_those_of_the_whole_tensor() -> None:
    generator = torch.Generator().manual_seed(0)
    start, end = (torch.randn(3, 4, generator=generator) for _ in range(2))
    flat = slerp(start.flatten(), end.flatten(), 0.3)
    assert torch.equal(slerp(start, end, 0.3).flatten(), flat)


def test_lengths_are_interpolated_by_the_same_coefficients() -> None:
    found = slerp(torch.tensor([2.0, 0.0]), torch.tensor([0.0, 5.0]), 0.5)
    torch.testing.assert_close(found, torch.tensor([2.0, 5.0]) * math.sqrt(0.5))


@pytest.mark.parametrize("turn", [1.0, -1.0])
def test_parallel_and_opposite_tensors_take_the_chord(turn: float) -> None:
    start = torch.tensor([1.0, 2.0, -3.0])
    assert torch.equal(slerp(start, 2 * turn * start, 0.5), start * (0.5 + turn))


def test_the_chord_is_taken_just_beyond_the_limit_only() -> None:
    start = torch.tensor([1.0, 0.0])
    for cosine, chord in ((0.9994, False), (0.9996, True)):
        end = torch.tensor([cosine, math.sqrt(1 - cosine**2)])
        straight = torch.equal(slerp(start, end, 0.5), start * 0.5 + end * 0.5)
        assert straight is chord


def test_a_zero_tensor_stands_at_a_right_angle() -> None:
    end = torch.tensor([3.0, 4.0])
    found = slerp(torch.zeros(2), end, 0.3)
    torch.testing.assert_close(found, end * math.sin(0.3 * math.pi / 2))


def test_angles_are_taken_in_float64() -> None:
    generator = torch.Generator().manual_seed(1)
    start = torch.randn(100_000, generator=generator)
    end = start + 0.04 * torch.randn(100_000, generator=generator)  # cosine about 0.9992
    a, b = start.double(), end.double()
    angle = math.acos(float(a @ b / (a.norm() * b.norm())))
    assert math.cos(angle) < 0.9995
    exact = (math.sin(0.7 * angle) * a + math.sin(0.3 * angle) * b) / math.sin(angle)
    torch.testing.assert_close(slerp(start, end, 0.3).double(), exact, rtol=2e-7, atol=2e-7)


@pytest.mark.parametrize("count", [0, 2])
def test_takes_exactly_one_source(count: int) -> None:
    model = {"w": torch.ones(2)}
    with pytest.raises(MergeError, match=f"found {count}"):
        merge_tensors("slerp", model, [model] * count, {})


def test_needs_a_base() -> None:
    with pytest.raises(MergeError, match="`slerp` needs a base"):
        merge_tensors("slerp", None, [{"w": torch.ones(2)}], {})
