import pytest
import torch

from evomerge.checkpoints.dtypes import DTYPES, all_finite

FLOATS = [dtype for dtype in DTYPES.values() if dtype.is_floating_point]


@pytest.mark.parametrize("dtype", FLOATS, ids=str)
def test_one_nan_is_found_anywhere(dtype: torch.dtype) -> None:
    for place in range(15):
        values = torch.arange(15.0) - 7
        assert all_finite(values.view(3, 5).to(dtype))
        values[place] = float("nan")
        assert not all_finite(values.view(3, 5).to(dtype))


@pytest.mark.parametrize("value", [float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [each for each in FLOATS if each != torch.float8_e4m3fn], ids=str)
def test_infinity_of_either_sign_is_found(dtype: torch.dtype, value: float) -> None:
    assert not all_finite(torch.tensor([0.0, value, 1.0]).to(dtype))


def test_the_largest_values_are_finite() -> None:
    assert all_finite(torch.full((9,), torch.finfo(torch.float32).max))
    assert all_finite(torch.empty(0))
    assert all_finite(torch.tensor(1.0))
