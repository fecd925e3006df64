"""RegMean, against the formula written out in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge import merge_tensors
from evomerge.errors import MergeError

Array = NDArray[np.float64]
LAYER = "fc1.weight"


def draw(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


INPUTS = [draw(0, 40, 6), 3.0 * draw(1, 30, 6)]
MODELS = [
    {LAYER: draw(2 + i, 4, 6), "fc1.bias": draw(4 + i, 4), "norm.weight": draw(6 + i, 6)} for i in (0, 1)
]
GRAMS = [{LAYER: inputs.T @ inputs / len(inputs)} for inputs in INPUTS]


def merged(
    params: dict[str, Any],
    *,
    grams: Any = GRAMS,
    models: Any = MODELS,
    compat: str = "evomerge",
    **turned: bool,
) -> dict[str, Tensor]:
    return merge_tensors("regmean", None, models, params, statistics=grams, compat=compat, **turned)  # type: ignore[arg-type]


def written_out(ratio: float, shares: tuple[float, float], grams: Any = GRAMS) -> Array:
    """Return the layer by a plain float64 solve, without a ridge."""
    total, right = np.zeros((6, 6)), np.zeros((6, 4))
    for share, model, known in zip(shares, MODELS, grams, strict=True):
        gram = known[LAYER].double().numpy()
        reduced = share * (ratio * gram + (1 - ratio) * np.diag(np.diag(gram)))
        total += reduced
        right += reduced @ model[LAYER].double().numpy().T
    return np.asarray(np.linalg.solve(total, right).T)


@pytest.mark.parametrize("ratio", [0.0, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("shares", [(0.5, 0.5), (0.8, 0.2)])
@pytest.mark.parametrize("compat", ["evomerge", "official", "mergelm", "fusion_bench", "regmean_repo"])
def test_a_linear_layer_is_solved_for(ratio: float, shares: tuple[float, float], compat: str) -> None:
    params = {"reduce_non_diagonal_ratio": ratio, "coefficients": list(shares)}
    found = merged(params, compat=compat)[LAYER]
    np.testing.assert_allclose(found.numpy(), written_out(ratio, shares), rtol=1e-4, atol=1e-5)


def test_the_default_keeps_nine_tenths_of_what_is_off_the_diagonal() -> None:
    np.testing.assert_allclose(merged({})[LAYER].numpy(), written_out(0.9, (0.5, 0.5)), rtol=1e-4, atol=1e-5)


def test_of_a_ratio_of_zero_each_input_feature_is_a_mean_of_its_own() -> None:
    sizes = torch.stack([known[LAYER].diagonal() for known in GRAMS])
    weights = torch.stack([model[LAYER] for model in MODELS])
    expected = (sizes[:, None] * weights).sum(0) / sizes.sum(0)
    torch.testing.assert_close(
        merged({"reduce_non_diagonal_ratio": 0.0})[LAYER], expected, rtol=1e-5, atol=1e-5
    )


def test_the_outputs_on_the_models_inputs_are_as_close_as_can_be() -> None:
    def error(weight: Tensor) -> float:
        pairs = zip(MODELS, INPUTS, strict=True)
        return sum(float((x @ (weight - model[LAYER]).T).square().sum() / len(x)) for model, x in pairs)

    best = merged({"reduce_non_diagonal_ratio": 1.0})[LAYER]
    assert error(best) < error(best + 0.01 * draw(9, 4, 6))
    assert error(best) < 0.9 * error((MODELS[0][LAYER] + MODELS[1][LAYER]) / 2)


def test_what_has_no_gram_matrix_is_averaged() -> None:
    found = merged({"weight": [3.0, 1.0]})
    for name in ("fc1.bias", "norm.weight"):
        expected = 0.75 * MODELS[0][name] + 0.25 * MODELS[1][name]
        torch.testing.assert_close(found[name], expected, rtol=1e-6, atol=1e-7)
    half = merged({"weight": [3.0, 1.0]}, grams=[GRAMS[0], {}])[LAYER]
    torch.testing.assert_close(half, 0.75 * MODELS[0][LAYER] + 0.25 * MODELS[1][LAYER], rtol=1e-6, atol=1e-7)


def test_a_weight_stored_inputs_first_is_not_turned() -> None:
    turned = [{LAYER: model[LAYER].T.contiguous()} for model in MODELS]
    found = merged({}, models=turned, inputs_first=True)[LAYER]
    torch.testing.assert_close(found.T, merged({})[LAYER], rtol=1e-6, atol=1e-6)


def test_dead_features_are_averaged() -> None:
    dead = [x.clone() for x in INPUTS]
    for x in dead:
        x[:, 2] = 0.0
    grams = [{LAYER: x.T @ x / len(x)} for x in dead]
    average = (MODELS[0][LAYER] + MODELS[1][LAYER]) / 2
    for ratio in (0.0, 0.9, 1.0):
        found = merged({"reduce_non_diagonal_ratio": ratio}, grams=grams)[LAYER]
        torch.testing.assert_close(found[:, 2], average[:, 2], rtol=1e-5, atol=1e-6)
        assert not torch.allclose(found[:, 1], average[:, 1], rtol=1e-2)
    nothing = [{LAYER: torch.zeros(6, 6)}] * 2
    torch.testing.assert_close(merged({}, grams=nothing)[LAYER], average, rtol=1e-6, atol=1e-7)


def test_a_small_feature_beside_a_huge_one_keeps_its_weights() -> None:
    uneven = torch.tensor([1e4, 1.0, 1.0, 1.0, 1.0, 1e-3])
    grams = [{LAYER: (x * uneven).T @ (x * uneven) / len(x)} for x in INPUTS]
    same = [{LAYER: MODELS[0][LAYER]}] * 2
    torch.testing.assert_close(
        merged({}, grams=grams, models=same)[LAYER], MODELS[0][LAYER], rtol=1e-6, atol=0.0
    )


def test_fewer_tokens_than_features_do_no_harm() -> None:
    few = [(4 * x[:2]).round() for x in INPUTS]  # whole numbers, so that the Gram matrices are exact
    grams = [{LAYER: x.T @ x / 2} for x in few]
    found = merged({"reduce_non_diagonal_ratio": 1.0}, grams=grams)[LAYER]
    assert float(found.abs().max()) < 10
    unseen = np.linalg.svd(np.concatenate([x.double().numpy() for x in few]))[2][-1]
    average = (MODELS[0][LAYER] + MODELS[1][LAYER]).double().numpy() / 2
    np.testing.assert_allclose(found.double().numpy() @ unseen, average @ unseen, atol=1e-4)


def test_what_does_not_fit_is_refused() -> None:
    wrong = [GRAMS[0], {LAYER: torch.eye(4)}]
    with pytest.raises(
        MergeError, match=r"of `fc1.weight` in model1 is \[4, 4\], but the weight has 6 inputs"
    ):
        merged({}, grams=wrong)
    with pytest.raises(MergeError, match=r"at most 1, found 1\.5"):
        merged({"reduce_non_diagonal_ratio": 1.5})
    with pytest.raises(MergeError, match="no shares"):
        merged({"weight": [0.0, 0.0]})
