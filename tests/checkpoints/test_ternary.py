"""Packed ternary tensors: bit-exact, close to the entropy, with inner products by counting bits."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evomerge.checkpoints.ternary import CODINGS, Ternary, decoded, encoded, pack, rest_width
from evomerge.errors import MergeError


def random_ternary(size: int, density: float, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(size, generator=generator)
    return torch.where(draws < density, torch.where(draws < density / 2, -0.25, 0.25), 0.0)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    signs=st.lists(st.sampled_from([-1.0, 0.0, 0.0, 0.0, 1.0]), max_size=40),
    scale=st.floats(min_value=2.0**-100, max_value=2.0**100, width=32),
    coding=st.sampled_from(CODINGS),
)
def test_a_round_trip_is_bit_exact(signs: list[float], scale: float, coding: str) -> None:
    tensor = torch.tensor(signs) * scale
    packed = pack(tensor)
    again = decoded(packed.shape, packed.scale, packed.kept, encoded(packed, coding))
    assert again.tensor().numpy().tobytes() == tensor.add(0.0).numpy().tobytes()  # −0 is 0
    assert (again.plus.tobytes(), again.minus.tobytes()) == (packed.plus.tobytes(), packed.minus.tobytes())


@pytest.mark.parametrize("shape", [(), (0, 4), (3, 5), (2, 2, 3)])
def test_shapes_are_kept(shape: tuple[int, ...]) -> None:
    assert pack(torch.full(shape, -2.0)).tensor().shape == shape
    assert bool((pack(torch.full(shape, -2.0)).tensor() == -2).all())


def test_bits_are_little_endian_in_c_order() -> None:
    packed = pack(torch.tensor([[1.0, 0.0, 0.0, -1.0, 0.0], [0.0, 0.0, 0.0, 1.0, 1.0]]))
    assert packed.plus.tolist() == [1, 3]
    assert packed.minus.tolist() == [8, 0]


@pytest.mark.parametrize("density", [0.001, 0.05, 0.2, 0.5])
def test_golomb_coding_is_close_to_the_entropy(density: float) -> None:
    size = 400_000
    packed = pack(random_ternary(size, density))
    bits = 8 * sum(len(plane) for plane in encoded(packed, "golomb").values()) / size
    share = packed.kept / size
    entropy = -share * math.log2(share) - (1 - share) * math.log2(1 - share) + share
    assert entropy <= bits <= 1.05 * entropy + 0.001


@pytest.mark.parametrize("density", [0.0, 0.03, 0.4, 1.0])
def test_the_inner_product_is_that_of_the_tensors(density: float) -> None:
    one, other = random_ternary(1001, density), 3 * random_ternary(1001, 0.5, seed=1)
    assert pack(one).dot(pack(other)) == pytest.approx(float(one.double().dot(other.double())))
    assert pack(one).dot(pack(one)) == pytest.approx(float(one.double().square().sum()))


def test_other_shapes_have_no_inner_product() -> None:
    with pytest.raises(MergeError, match=r"\[2\] and \[3\]"):
        pack(torch.ones(2)).dot(pack(torch.ones(3)))


@pytest.mark.parametrize("value", [0.5, float("nan"), float("inf")])
def test_a_tensor_of_several_magnitudes_is_refused(value: float) -> None:
    with pytest.raises(MergeError, match="one magnitude"):
        pack(torch.tensor([1.0, -1.0, value]))


@pytest.mark.parametrize(
    ("kept", "size", "width"), [(0, 9, 0), (9, 9, 0), (1, 2, 0), (20, 100, 2), (5, 100, 4)]
)
def test_rest_width(kept: int, size: int, width: int) -> None:
    assert rest_width(kept, size) == width


@pytest.mark.parametrize("coding", CODINGS)
def test_bits_that_are_not_signs_of_as_many_entries_are_refused(coding: str) -> None:
    packed = pack(random_ternary(100, 0.3))
    planes = encoded(packed, coding)
    wrong = [(packed.shape, packed.kept + 1, planes), ((20,), packed.kept, planes)]
    for name, plane in planes.items():
        wrong.append((packed.shape, packed.kept, {**planes, name: np.append(plane, np.uint8(255))}))
    for shape, kept, each in wrong:
        with pytest.raises(ValueError, match=r"its (bits|gaps)"):
            decoded(shape, packed.scale, kept, each)


def test_an_entry_cannot_be_both() -> None:
    both = np.array([3], dtype=np.uint8)
    with pytest.raises(ValueError, match="its bits"):
        decoded((8,), 1.0, 4, {"plus": both, "minus": both})


def test_kept_counts_both_signs() -> None:
    packed: Ternary = pack(torch.tensor([1.0, 0.0, -1.0, -1.0]))
    assert packed.kept == 3
