"""Weighted sums over a base, also where the weights cannot be divided by."""

import pytest
import torch

from evomerge.merge.kernels.weighting import add_weighted

BASE = torch.tensor([1.0, 2.0])
DELTAS = torch.tensor([[4.0, 0.0], [0.0, 8.0]])


@pytest.mark.parametrize(
    ("weight", "normalize", "expected"),
    [
        ((1.0, 3.0), False, [3.0, 14.0]),
        ((1.0, 3.0), True, [1.5, 5.0]),
        ((-1.0, 3.0), True, [0.0, 8.0]),
        ((1.0, -1.0), True, [3.0, -2.0]),  # they cancel out: divided by one
    ],
)
def test_deltas_are_weighted_then_divided_then_scaled(
    weight: tuple[float, ...], normalize: bool, expected: list[float]
) -> None:
    found = add_weighted(BASE, DELTAS, weight, scale=0.5, normalize=normalize)
    torch.testing.assert_close(found, torch.tensor(expected))
    assert BASE.tolist() == [1.0, 2.0]
