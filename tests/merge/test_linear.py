"""The weighted mean."""

import pytest
import torch

from evomerge import merge_tensors
from evomerge.errors import MergeError

A, B = torch.tensor([1.0, -2.0]), torch.tensor([4.0, 6.0])


def test_defaults_are_the_uniform_mean() -> None:
    merged = merge_tensors("linear", None, [{"w": A}, {"w": B}], {})
    assert torch.equal(merged["w"], torch.tensor([2.5, 2.0]))


def test_weights_are_shares_of_their_sum() -> None:
    merged = merge_tensors("linear", None, [{"w": A}, {"w": B}], {"weight": [1, 3]})
    assert torch.equal(merged["w"], torch.tensor([3.25, 4.0]))


def test_without_normalising_weights_are_factors() -> None:
    merged = merge_tensors("linear", None, [{"w": A}, {"w": B}], {"weight": [1, 0.5], "normalize": False})
    assert torch.equal(merged["w"], torch.tensor([3.0, 1.0]))


def test_a_negative_weight_counts_with_its_sign() -> None:
    merged = merge_tensors("linear", None, [{"w": A}, {"w": B}], {"weight": [3, -1]})
    assert torch.equal(merged["w"], torch.tensor([-0.5, -6.0]))


def test_one_source_is_copied_when_normalised() -> None:
    thirds = torch.arange(1000) / 3
    merged = merge_tensors("linear", None, [{"w": thirds}], {"weight": 0.7})
    assert torch.equal(merged["w"], thirds)


def test_a_mean_of_large_values_does_not_overflow_on_the_way() -> None:
    large = torch.tensor([3e38])
    assert torch.equal(merge_tensors("linear", None, [{"w": large}] * 2, {})["w"], large)


@pytest.mark.parametrize("weight", [(1.0, -1.0), (0.0, 0.0), (1e-9, 0.0)])
def test_a_sum_of_zero_cannot_be_normalised(weight: tuple[float, float]) -> None:
    with pytest.raises(MergeError, match=r"weights of `w` sum to .*`normalize: false`"):
        merge_tensors("linear", None, [{"w": A}, {"w": B}], {"weight": weight})


def test_a_given_base_is_only_the_template() -> None:
    base = {"w": torch.full((2,), 9.0, dtype=torch.bfloat16)}
    merged = merge_tensors("linear", base, [{"w": A}, {"w": B}], {})
    assert merged["w"].dtype == torch.bfloat16
    assert torch.equal(merged["w"], torch.tensor([2.5, 2.0], dtype=torch.bfloat16))


def test_sums_in_float32_and_rounds_once() -> None:
    third = torch.tensor([1 / 3], dtype=torch.bfloat16)
    merged = merge_tensors("linear", None, [{"w": third}] * 3, {"weight": [0.3, 0.4, 0.7]})
    assert torch.equal(merged["w"], third)


def test_a_different_shape_is_refused_by_name() -> None:
    with pytest.raises(MergeError, match=r"`w` of model1 is \[1, 2\], not \[2\]"):
        merge_tensors("linear", None, [{"w": A}, {"w": B[None]}], {})


def test_a_tensor_missing_in_a_model_is_copied_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    merged = merge_tensors("linear", None, [{"w": A}, {"v": B}], {})
    assert torch.equal(merged["w"], A)
    assert list(merged) == ["w"]
    assert "`w` is not in model1: copied from model0" in caplog.text


def test_integers_are_never_averaged_with_floats() -> None:
    merged = merge_tensors("linear", None, [{"w": A}, {"w": torch.tensor([5, 5])}], {})
    assert torch.equal(merged["w"], A)


def test_parameters_of_a_module_are_merged_as_their_values() -> None:
    parameter = torch.nn.Parameter(A.clone())
    merged = merge_tensors("task_arithmetic", {"w": B}, [{"w": parameter}], {})["w"]
    assert torch.equal(merged, A)
    assert not merged.requires_grad


@pytest.mark.parametrize("method", ["linear", "slerp", "task_arithmetic"])
@pytest.mark.parametrize("compat", ["mergekit", "official", "peft", "mergelm"])
def test_where_implementations_agree_any_may_be_named(method: str, compat: str) -> None:
    merged = merge_tensors(method, {"w": A}, [{"w": B}], {}, compat=compat)
    assert torch.equal(merged["w"], merge_tensors(method, {"w": A}, [{"w": B}], {})["w"])
