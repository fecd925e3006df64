"""Fisher-weighted averaging, against the formula written out in float64."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge import merge_tensors
from evomerge.errors import MergeError

Array = NDArray[np.float64]
SHAPES: dict[str, tuple[int, ...]] = {"a.weight": (5, 4), "b.bias": (7,), "c.weight": (2, 3, 2)}
SHARES = (0.7, 0.3)


def tensors(seed: int, *, scale: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: scale * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}


MODELS = [tensors(0), tensors(1)]
FISHERS = [
    {name: value.square() for name, value in tensors(2, scale=1e-3).items()},
    {name: value.square() for name, value in tensors(3, scale=1e-1).items()},
]


def doubles(parts: Sequence[dict[str, Tensor]], name: str) -> Array:
    return np.stack([part[name].double().numpy() for part in parts])


def flat(parts: Sequence[dict[str, Tensor]]) -> Array:
    return np.stack([np.concatenate([value.double().numpy().ravel() for value in p.values()]) for p in parts])


def averaged(weights: Array, values: Array) -> Array:
    return np.asarray((weights * values).sum(0) / weights.sum(0))


def column(values: Sequence[float] | Array, like: Array) -> Array:
    return np.asarray(values, dtype=np.float64).reshape(-1, *[1] * (like.ndim - 1))


def merged(params: dict[str, Any], *, compat: str = "evomerge", fishers: Any = FISHERS) -> dict[str, Tensor]:
    params = {"weight": list(SHARES), **params}
    return merge_tensors("fisher", None, MODELS, params, compat=compat, statistics=fishers)


def test_fishers_are_normalised_over_the_whole_model_with_one_relative_floor_for_all() -> None:
    norms = np.sqrt((flat(FISHERS) ** 2).sum(1))
    floor = 0.01 * (flat(FISHERS) / norms[:, None]).mean()
    for name, value in merged({"floor": 0.01}).items():
        fishers = doubles(FISHERS, name)
        weights = column(SHARES, fishers) * np.maximum(fishers / column(norms, fishers), floor)
        np.testing.assert_allclose(value.numpy(), averaged(weights, doubles(MODELS, name)), rtol=2e-5)


def test_fishers_are_normalised_in_each_tensor_or_not_at_all() -> None:
    for normalize in ("tensor", "none"):
        for name, value in merged({"floor": 0.01, "normalize": normalize}).items():
            fishers = doubles(FISHERS, name)
            norms = np.sqrt((fishers.reshape(2, -1) ** 2).sum(1)) if normalize == "tensor" else np.ones(2)
            scaled = fishers / column(norms, fishers)
            weights = column(SHARES, fishers) * np.maximum(scaled, 0.01 * scaled.mean())
            np.testing.assert_allclose(value.numpy(), averaged(weights, doubles(MODELS, name)), rtol=2e-5)


@pytest.mark.parametrize("compat", ["official", "mergelm", "fusion_bench"])
@pytest.mark.parametrize("normalize", ["model", "tensor", "none"])
def test_other_semantics_have_an_absolute_floor(compat: str, normalize: str) -> None:
    word = "floor" if compat == "official" else "minimal"
    params = {word: 1e-4, "normalize": normalize, "favor_target": False}
    for name, value in merged(params, compat=compat).items():
        fishers = doubles(FISHERS, name)
        counted = {"model": flat(FISHERS), "tensor": fishers.reshape(2, -1), "none": None}[normalize]
        norms = np.ones(2) if counted is None else np.sqrt((counted**2).sum(1))
        if compat == "official":
            weights = np.maximum(fishers, 1e-4) / column(norms, fishers)
        else:
            weights = (fishers + 1e-4) / column(norms + 1e-4 * (counted is not None), fishers)
        weights = column(SHARES, fishers) * weights
        np.testing.assert_allclose(value.numpy(), averaged(weights, doubles(MODELS, name)), rtol=2e-5)


def test_implementations_differ() -> None:
    found = [
        merged({"floor": 1e-4, "favor_target": favor}, compat=compat)["a.weight"]
        for compat, favor in (
            ("evomerge", "auto"),
            ("official", "auto"),
            ("official", False),
            ("mergelm", "auto"),
        )
    ]
    assert all(float((one - other).abs().max()) > 1e-5 for i, one in enumerate(found) for other in found[:i])
    assert torch.equal(
        merged({}, compat="mergelm")["a.weight"], merged({}, compat="fusion_bench")["a.weight"]
    )


def test_the_scale_of_a_fisher_does_not_matter_once_normalised() -> None:
    larger = [FISHERS[0], {name: value * 1e6 for name, value in FISHERS[1].items()}]
    for name, value in merged({}).items():
        torch.testing.assert_close(merged({}, fishers=larger)[name], value, rtol=1e-5, atol=1e-6)
    apart = merged({"normalize": "none"}, fishers=larger)["a.weight"] - MODELS[1]["a.weight"]
    assert float(apart.abs().max()) < 1e-3  # the one with the larger gradients wins


def with_zeros(where: tuple[int, ...]) -> list[dict[str, Tensor]]:
    """Return the Fishers with zeros at the first row of `a.weight` in the models `where`."""
    found = [{name: value.clone() for name, value in fisher.items()} for fisher in FISHERS]
    for i in where:
        found[i]["a.weight"][0] = 0.0
    return found


@pytest.mark.parametrize("normalize", ["model", "tensor", "none"])
def test_what_matters_to_nobody_is_averaged_by_the_weights(normalize: str) -> None:
    value = merged({"normalize": normalize}, fishers=with_zeros((0, 1)))["a.weight"]
    expected = 0.7 * MODELS[0]["a.weight"] + 0.3 * MODELS[1]["a.weight"]
    torch.testing.assert_close(value[0], expected[0], rtol=1e-5, atol=1e-6)
    assert not torch.allclose(value[1], expected[1], rtol=1e-2)


def test_what_matters_to_one_is_that_one_s() -> None:
    value = merged({}, fishers=with_zeros((1,)))["a.weight"]
    torch.testing.assert_close(value[0], MODELS[0]["a.weight"][0], rtol=1e-3, atol=1e-3)


def test_the_target_is_favored_where_nothing_matters() -> None:
    value = merged({"favor_target": True}, fishers=with_zeros((0, 1)))["a.weight"]
    torch.testing.assert_close(value[0], MODELS[0]["a.weight"][0], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize("compat", ["evomerge", "official", "mergelm"])
@pytest.mark.parametrize("normalize", ["model", "tensor", "none"])
@pytest.mark.parametrize("floor", [0.0, 1e-6])
def test_zeros_everywhere_give_the_weighted_mean(compat: str, normalize: str, floor: float) -> None:
    zeros = [{name: torch.zeros_like(value) for name, value in fisher.items()} for fisher in FISHERS]
    params = {"normalize": normalize, "floor": floor, "favor_target": False}
    for name, value in merged(params, compat=compat, fishers=zeros).items():
        expected = 0.7 * MODELS[0][name] + 0.3 * MODELS[1][name]
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)


def test_a_tensor_that_was_not_measured_is_averaged_and_counts_in_no_norm() -> None:
    partial = [{name: value for name, value in fisher.items() if name != "b.bias"} for fisher in FISHERS]
    value = merged({}, fishers=partial)
    expected = 0.7 * MODELS[0]["b.bias"] + 0.3 * MODELS[1]["b.bias"]
    torch.testing.assert_close(value["b.bias"], expected, rtol=1e-6, atol=1e-7)
    only = [{name: model[name] for name in ("a.weight", "c.weight")} for model in MODELS]
    alone = merge_tensors("fisher", None, only, {"weight": list(SHARES)}, statistics=partial)
    assert torch.equal(alone["a.weight"], value["a.weight"])


def test_fishers_of_language_models_are_not_drowned_by_the_floor() -> None:
    tiny = [{name: value * 1e-9 for name, value in fisher.items()} for fisher in FISHERS]
    torch.testing.assert_close(merged({}, fishers=tiny), merged({}), rtol=1e-4, atol=1e-5)


def test_one_model_is_itself() -> None:
    value = merge_tensors("fisher", None, MODELS[:1], {"weight": 0.3}, statistics=FISHERS[:1])
    torch.testing.assert_close(value, MODELS[0], rtol=1e-6, atol=0.0)


def test_words_of_the_references_mean_the_same() -> None:
    theirs = {"coefficients": [0.7, 0.3], "minimal": 1e-4, "normalize": "model_l2"}
    ours = {"weight": [0.7, 0.3], "floor": 1e-4, "normalize": "model"}
    for compat in ("evomerge", "official", "mergelm"):
        one, other = (
            merge_tensors("fisher", None, MODELS, params, compat=compat, statistics=FISHERS)["a.weight"]
            for params in (theirs, ours)
        )
        assert torch.equal(one, other)


def test_what_cannot_be_a_fisher_is_refused() -> None:
    negative = [FISHERS[0], {**FISHERS[1], "a.weight": -FISHERS[1]["a.weight"]}]
    with pytest.raises(MergeError, match=r"of `a.weight` in model1 is negative"):
        merged({}, fishers=negative)
    wrong = [FISHERS[0], {**FISHERS[1], "a.weight": torch.ones(4, 5)}]
    with pytest.raises(MergeError, match=r"`a.weight` in model1 is \[4, 5\], not \[5, 4\]"):
        merged({}, fishers=wrong)
    with pytest.raises(MergeError, match=r"needs `statistics` \(fisher\) of 2 models, found 0"):
        merged({}, fishers=None)
    with pytest.raises(MergeError, match="no shares"):
        merged({"weight": 0.0})
