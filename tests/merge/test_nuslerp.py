"""NuSLERP: arcs by relative weight, of whole tensors, rows or columns, of weights or task vectors."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.errors import MergeError


def tensors(count: int, *shape: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for _ in range(count)]


def merge(
    start: Tensor,
    end: Tensor,
    params: dict[str, Any],
    *,
    base: Tensor | None = None,
    compat: str = "evomerge",
) -> Tensor:
    template = None if base is None else {"w": base}
    return merge_tensors("nuslerp", template, [{"w": start}, {"w": end}], params, compat=compat)["w"]


def arc(start: Tensor, end: Tensor, t: float) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return the point on the arc between two vectors, by the textbook."""
    a, b = start.double().numpy(), end.double().numpy()
    angle = math.acos(np.sum(a * b) / math.sqrt(np.sum(a * a) * np.sum(b * b)))
    point: np.ndarray[Any, np.dtype[np.float64]] = (
        math.sin((1 - t) * angle) * a + math.sin(t * angle) * b
    ) / math.sin(angle)
    return point


def close(found: Tensor, expected: object) -> None:
    torch.testing.assert_close(found.double(), torch.as_tensor(expected).double(), rtol=1e-6, atol=1e-6)


def test_weights_say_where_on_the_arc() -> None:
    start, end = tensors(2, 3, 4)
    close(merge(start, end, {"weight": [1, 3]}), arc(start, end, 0.75))
    close(merge(start, end, {}), arc(start, end, 0.5))


def test_with_a_base_the_arc_is_between_task_vectors() -> None:
    start, end, base = tensors(3, 3, 4)
    expected = base.double().numpy() + arc(start - base, end - base, 0.6)
    close(merge(start, end, {"weight": [0.4, 0.6]}, base=base), expected)


@pytest.mark.parametrize("word", [False, True])
def test_rows_and_columns_have_angles_of_their_own(word: bool) -> None:
    start, end = tensors(2, 3, 4)
    found = merge(start, end, {"weight": [1, 2], "flatten": False, "axis": "columns" if word else "rows"})
    vectors = zip(start.unbind(int(word)), end.unbind(int(word)), strict=True)
    close(found, np.stack([arc(a, b, 2 / 3) for a, b in vectors], axis=int(word)))


@pytest.mark.parametrize("compat", ["evomerge", "mergekit"])
def test_mergekits_row_wise_means_columns(compat: str) -> None:
    start, end = tensors(2, 3, 4)
    theirs = {"nuslerp_flatten": False, "nuslerp_row_wise": True}
    ours = {"flatten": False, "axis": "columns"}
    assert torch.equal(merge(start, end, theirs, compat=compat), merge(start, end, ours))
    theirs["nuslerp_row_wise"] = False
    assert torch.equal(merge(start, end, theirs, compat=compat), merge(start, end, ours | {"axis": "rows"}))


def test_flatten_comes_before_the_axis() -> None:
    start, end = tensors(2, 3, 4)
    assert torch.equal(merge(start, end, {"axis": "columns"}), merge(start, end, {}))


def test_experts_have_their_own_columns_but_not_in_mergekit() -> None:
    start, end = tensors(2, 2, 3, 4)
    params = {"flatten": False, "axis": "columns"}
    each = [merge(a, b, params) for a, b in zip(start, end, strict=True)]
    found = merge(start, end, params)
    close(found, torch.stack(each))
    assert found.is_contiguous()
    across = merge(start.reshape(2, 12), end.reshape(2, 12), params).reshape(2, 3, 4)
    close(merge(start, end, params, compat="mergekit"), across)
    assert not torch.allclose(across, torch.stack(each), atol=1e-3)


def test_rows_of_experts_are_along_the_last_dimension() -> None:
    start, end = tensors(2, 2, 3, 4)
    flat = merge(start.reshape(6, 4), end.reshape(6, 4), {"flatten": False})
    assert torch.equal(merge(start, end, {"flatten": False}).reshape(6, 4), flat)


@pytest.mark.parametrize("factor", [2.0, 1.0, -1.0, -0.5])
def test_colinear_vectors_take_the_chord(factor: float) -> None:
    (start,) = tensors(1, 5)
    close(merge(start, factor * start, {"weight": [1, 3]}), start * (0.25 + 0.75 * factor))


def test_a_row_takes_the_chord_alone() -> None:
    start, end = tensors(2, 3, 4)
    end[1] = 2 * start[1]
    found = merge(start, end, {"weight": [1, 3], "flatten": False})
    close(found[1], start[1] * 1.75)
    close(found[2], arc(start[2], end[2], 0.75))


def test_arcs_just_longer_than_nothing_are_still_arcs() -> None:
    start, end = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 2.0**-16])
    angle = math.pi - math.atan(2.0**-16)
    expected = math.sin(angle / 2) / math.sin(angle) * (start + end).double()
    torch.testing.assert_close(merge(start, end, {}).double(), expected, rtol=1e-6, atol=1e-6)


def test_what_has_no_length_takes_the_chord_but_stands_at_a_right_angle_in_mergekit() -> None:
    end = torch.tensor([3.0, 4.0])
    params = {"weight": [0.7, 0.3]}
    close(merge(torch.zeros(2), end, params), end * 0.3)
    close(merge(torch.zeros(2), end, params, compat="mergekit"), end * math.sin(0.3 * math.pi / 2))


@pytest.mark.parametrize("compat", ["evomerge", "mergekit"])
def test_two_models_that_are_the_base_are_the_base(compat: str) -> None:
    (base,) = tensors(1, 3, 4)
    assert torch.equal(merge(base, base.clone(), {"flatten": False}, base=base, compat=compat), base)


@pytest.mark.parametrize("weight", [(0.0, 0.0), (1.0, -1.0), (4e-7, 0.0)])
def test_weights_without_a_sum_meet_halfway(weight: tuple[float, float]) -> None:
    start, end = tensors(2, 5)
    assert torch.equal(merge(start, end, {"weight": weight}), merge(start, end, {}))


@pytest.mark.parametrize("count", [1, 3])
def test_takes_exactly_two_models(count: int) -> None:
    with pytest.raises(MergeError, match=f"exactly 2 model\\(s\\), found {count}"):
        merge_tensors("nuslerp", None, [{"w": torch.ones(2)}] * count, {})
