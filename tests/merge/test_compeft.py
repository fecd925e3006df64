"""ComPEFT, over a tensor and over the whole model, against numpy in float64."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors

SHAPES = {"b": (6, 5), "a": (40,), "c": (2, 3, 4), "d": ()}
Vectors = dict[str, Tensor]


def vectors(count: int) -> list[Vectors]:
    generator = torch.Generator().manual_seed(3)
    return [
        {name: 0.1 + torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
        for _ in range(count)
    ]


def merged(*deltas: Vectors, compat: str = "evomerge", **params: Any) -> Vectors:
    """Return the sum of the compressed task vectors over a base of zeros."""
    base = {name: torch.zeros_like(value) for name, value in deltas[0].items()}
    return merge_tensors("compeft", base, deltas, params, compat=compat)


def vector(*values: float) -> Vectors:
    return {"w": torch.tensor(values)}


def flat(tensors: Vectors, *names: str) -> Any:
    return np.concatenate([tensors[name].double().numpy().ravel() for name in names])


def expected(v: Any, count: int, mode: str, alpha: float) -> Any:
    order = np.argsort(-np.abs(v), kind="stable")[:count]
    out = np.zeros_like(v)
    if mode == "prune":
        out[order] = v[order]
    else:
        out[order] = np.sign(v[order]) * (
            alpha * v.std(ddof=1) if mode == "ternary" else np.abs(v[order]).mean()
        )
    return out


@pytest.mark.parametrize("mode", ["ternary", "prune", "stc"])
@pytest.mark.parametrize("density", [0.1, 0.5, 1.0])
@pytest.mark.parametrize("short", [0, 1000])
def test_the_whole_model_is_compressed_by_the_formula(
    mode: str, density: float, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.merge.kernels.order_statistics._SHORT", short)  # counted, or held
    deltas = vectors(2)
    found = merged(*deltas, density=density, mode=mode, alpha=3.0, weight=[1.0, -0.5])
    one, other = (flat(delta, *SHAPES) for delta in deltas)
    want = expected(one, int(len(one) * density), mode, 3.0) - 0.5 * expected(
        other, int(len(one) * density), mode, 3.0
    )
    np.testing.assert_allclose(flat(found, *SHAPES), want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("mode", ["ternary", "prune", "stc"])
def test_each_tensor_is_compressed_by_the_formula(mode: str) -> None:
    (delta,) = vectors(1)
    found = merged(delta, density=0.3, mode=mode, alpha=2.0, scope="tensor")
    for name in ("a", "b", "c"):
        v = flat(delta, name)
        want = expected(v, int(len(v) * 0.3), mode, 2.0)
        np.testing.assert_allclose(flat(found, name), want, rtol=1e-5, atol=1e-6)


def test_ties_at_the_cut_go_to_the_lower_index_and_to_the_first_name() -> None:
    delta = {"z": torch.tensor([1.0, -1.0]), "a": torch.tensor([0.0, 1.0, 1.0])}
    found = merged(delta, density=0.4, mode="prune")
    assert found["a"].tolist() == [0.0, 1.0, 1.0]
    assert found["z"].tolist() == [0.0, 0.0]


def test_official_keeps_one_more_and_every_tie() -> None:
    delta = vector(1.0, -1.0, 1.0, 3.0, 0.5)
    assert merged(delta, density=0.2, mode="prune")["w"].tolist() == [0.0, 0.0, 0.0, 3.0, 0.0]
    official = merged(delta, density=0.2, mode="prune", compat="official")["w"]
    assert official.tolist() == [1.0, -1.0, 1.0, 3.0, 0.0]


@pytest.mark.parametrize("mode", ["ternary", "prune", "stc"])
@pytest.mark.parametrize("percent", [100, 1])
def test_official_compresses_nothing_at_100_percent_nor_at_1(percent: int, mode: str) -> None:
    (delta,) = vectors(1)
    found = merged(delta, k_percent=percent, mode=mode, compat="official")
    assert all(torch.equal(found[name], value) for name, value in delta.items())


def test_a_density_of_one_keeps_every_sign() -> None:
    (delta,) = vectors(1)
    found = merged(delta, density=1.0)
    assert all(torch.equal(found[name].sign(), value.sign()) for name, value in delta.items())
    assert len({float(value.abs().max()) for value in found.values()}) == 1


def test_k_percent_is_percent_above_one() -> None:
    (delta,) = vectors(1)
    one, other = merged(delta, k_percent=30), merged(delta, density=0.3)
    assert all(torch.equal(one[name], other[name]) for name in SHAPES)


def test_official_takes_the_mean_of_signed_values() -> None:
    delta = vector(3.0, -1.0, 0.5, 0.25)
    assert merged(delta, density=0.5, mode="stc")["w"].tolist() == [2.0, -2.0, 0.0, 0.0]
    official = merged(delta, density=0.25, mode="stc", compat="official")["w"]
    assert official.tolist() == [1.0, -1.0, 0.0, 0.0]


def test_alpha_scales_ternary_vectors_only() -> None:
    (delta,) = vectors(1)
    for mode, factor in (("ternary", 4.0), ("prune", 1.0), ("stc", 1.0)):
        once, more = merged(delta, mode=mode), merged(delta, mode=mode, alpha=4.0)
        torch.testing.assert_close(more["a"], factor * once["a"])


@pytest.mark.parametrize("scope", ["tensor", "model"])
@pytest.mark.parametrize("compat", ["evomerge", "official"])
@pytest.mark.parametrize("mode", ["ternary", "prune", "stc"])
def test_zero_and_tiny_task_vectors(mode: str, compat: str, scope: str) -> None:
    for value in (torch.zeros(4), torch.zeros(()), torch.ones(1), torch.empty(0, 2)):
        found = merged({"w": value}, mode=mode, compat=compat, scope=scope)["w"]
        assert found.shape == value.shape
        assert bool(found.isfinite().all())


def test_the_deviation_of_a_large_mean_is_exact() -> None:
    delta = {"a": torch.full((1000,), 1000.0), "b": torch.full((1000,), 1001.0)}
    found = merged(delta, density=1.0)
    assert float(found["a"][0]) == pytest.approx(0.5 * (2000 / 1999) ** 0.5, rel=1e-6)


def test_normalize_divides_by_the_weights() -> None:
    deltas = vectors(2)
    plain, divided = (merged(*deltas, weight=[1.0, 3.0], normalize=flag) for flag in (False, True))
    torch.testing.assert_close(divided["a"], plain["a"] / 4)
