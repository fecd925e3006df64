"""Every method gives the numbers of the reference implementations; README.md says where they come from."""

import json
import math
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors, plugins
from evomerge.errors import MergeError

Case: TypeAlias = Mapping[str, Any]
Tensors: TypeAlias = dict[str, Tensor]

HERE = Path(__file__).parent
INDEX = json.loads((HERE / "index.json").read_text(encoding="utf-8"))
CASES: list[Case] = [case for case in INDEX["cases"] if case["method"] in plugins.names("methods")]
ONLY = "w"  # the name of a case's single tensor
NOT_PARAMETERS = ("must_raise", "n_seeds")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_case(case: Case) -> None:
    RUNNERS[case["kind"]](case)


def test_no_case_is_left_out() -> None:
    names = [case["id"] for case in INDEX["cases"]]
    assert len(set(names)) == len(names)
    assert [case["id"] for case in CASES] == names, "a case of a method that does not exist"
    assert {case["kind"] for case in CASES} <= set(RUNNERS)
    assert {case["source"] for case in CASES} == set(INDEX["sources"])


def test_every_array_belongs_to_a_case() -> None:
    named = {key for case in CASES for part in PARTS for key in keys(case[part])}
    assert named == set(arrays())


def runs_to_the_expected_numbers(case: Case) -> None:
    masks = tensors_of(case["aux"]["keep_mask"], case) if "keep_mask" in case["aux"] else None
    merged = merge(case, keep_masks=masks)
    (expected,) = tensors_of([merged_part(case)], case)
    assert list(merged) == list(expected)
    for name, value in expected.items():
        assert merged[name].dtype == value.dtype
        torch.testing.assert_close(merged[name], value, **case["tol"])


def is_refused(case: Case) -> None:
    assert case["params"]["must_raise"] is True
    with pytest.raises(MergeError):
        merge(case)


def drops_at_the_stated_rate(case: Case) -> None:
    """The case's note: share kept and exact rescaling per seed, unbiased over seeds."""
    rate, seeds = case["params"]["drop_rate"], case["params"]["n_seeds"]
    (model,) = tensors_of(case["models"], case)
    delta = model[ONLY]
    mean = torch.zeros_like(delta, dtype=torch.float64)
    draws: list[Tensor] = []
    for seed in range(seeds):
        dropped = merge(case, base={ONLY: torch.zeros_like(delta)}, seed=seed)[ONLY]
        kept = dropped != 0
        assert abs(float(kept[delta != 0].double().mean()) - (1 - rate)) <= 0.03
        torch.testing.assert_close(dropped[kept], (delta / (1 - rate))[kept], rtol=1e-6, atol=0.0)
        mean += dropped.double() / seeds
        draws.append(kept)
    assert len({kept.numpy().tobytes() for kept in draws}) == seeds
    bound = 6 * delta.double().abs() * math.sqrt(rate / (1 - rate) / seeds)
    assert float(((mean - delta.double()).abs() <= bound).double().mean()) >= 0.999


RUNNERS: Mapping[str, Callable[[Case], None]] = {
    "deterministic": runs_to_the_expected_numbers,
    "mask_given": runs_to_the_expected_numbers,
    "spec": runs_to_the_expected_numbers,
    "statistical": drops_at_the_stated_rate,
    "error": is_refused,
}
PARTS = ("base", "models", "aux", "expected")


def merge(
    case: Case,
    *,
    base: Tensors | None = None,
    seed: int = 0,
    keep_masks: Sequence[Tensors] | None = None,
) -> Tensors:
    if case["base"] is not None:
        (base,) = tensors_of([case["base"]], case)
    params = {name: value for name, value in case["params"].items() if name not in NOT_PARAMETERS}
    compat = "evomerge" if case["compat"] == "any" else case["compat"]
    models = tensors_of(case["models"], case)
    return merge_tensors(
        case["method"], base, models, params, seed=seed, compat=compat, keep_masks=keep_masks
    )


def merged_part(case: Case) -> Any:
    """Return the keys of what the merge gives: some cases also hold steps on the way."""
    named = isinstance(case["expected"], dict) and case["scope"] == "tensor"
    return case["expected"]["merged"] if named else case["expected"]


def tensors_of(parts: Sequence[Any], case: Case) -> list[Tensors]:
    """Return each part (a key, or keys by tensor name) as a dict of tensors."""
    return [
        {name: tensor(key, case) for name, key in (part if isinstance(part, dict) else {ONLY: part}).items()}
        for part in parts
    ]


def tensor(key: str, case: Case) -> Tensor:
    array = arrays()[key]
    if case["dtype"] == "bfloat16" and array.dtype == np.uint16:
        return torch.from_numpy(array.view(np.int16).copy()).view(torch.bfloat16)
    return torch.from_numpy(array.copy())


@cache
def arrays() -> Mapping[str, np.ndarray[Any, Any]]:
    with np.load(HERE / "arrays.npz") as file:
        return dict(file)


def keys(part: Any) -> list[str]:
    if part is None:
        return []
    if isinstance(part, str):
        return [part]
    return [key for each in (part.values() if isinstance(part, dict) else part) for key in keys(each)]
