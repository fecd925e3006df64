"""PCB-Merging against the authors' formula in float64, in both variants and scopes."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.merge.methods.pcb import Pcb
from evomerge.parameters import bind

SHAPES = {"a": (7, 9), "b": (40,), "c": (2, 3, 4), "d": ()}


def vectors(count: int, seed: int = 0) -> list[dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
        for _ in range(count)
    ]


def merged(
    deltas: list[dict[str, Tensor]], *, compat: str = "evomerge", scale: float = 1.0, **params: Any
) -> dict[str, Tensor]:
    """Return the merged task vectors over a base of zeros."""
    base = {name: torch.zeros_like(value) for name, value in deltas[0].items()}
    return merge_tensors("pcb", base, deltas, {"lambda": scale, **params}, compat=compat)


def normalised(rows: Any) -> Any:
    low, high = rows.min(1, keepdims=True), rows.max(1, keepdims=True)
    return (rows - low) / np.where(high > low, high - low, 1)


def expected(rows: Any, variant: str, ratio: float, clamp: float, weight: list[float]) -> Any:
    """Return the merged vector of the task vectors `rows (n, d)`."""
    n, d = rows.shape
    ordered = np.sort(np.abs(rows), 1)
    low, high = ordered[:, [int(d * clamp)]], ordered[:, [int(d * (1 - clamp) - 1)]]
    size = np.clip(np.abs(rows), low, high)
    intra = np.exp(n * normalised(size) ** 2)
    signed = np.sign(rows) * normalised(size)
    inter = (
        np.tanh(rows * rows.sum(0))
        if variant == "main"
        else sum(np.tanh(signed * signed[j]) for j in range(n))
    )
    scores = intra * inter
    share = normalised(np.maximum(scores, np.sort(scores, 1)[:, [int(d * (1 - ratio))]]))
    total = (np.array(weight)[:, None] * np.sign(rows) * size * share).sum(0)
    return total / np.maximum(share.sum(0), 1e-12)


def flat(deltas: list[dict[str, Tensor]], *names: str) -> Any:
    return np.stack([np.concatenate([d[n].double().numpy().ravel() for n in names]) for d in deltas])


@pytest.mark.parametrize("variant", ["es", "main"])
@pytest.mark.parametrize("clamp", [0.01, 1e-4, 0.1])
@pytest.mark.parametrize("count", [1, 3])
def test_each_tensor_is_merged_by_the_formula(variant: str, clamp: float, count: int) -> None:
    deltas, weight = vectors(count), [1.2, 0.9, 1.1][:count]
    found = merged(deltas, variant=variant, clamp=clamp, ratio=0.3, lambdas=weight, scope="tensor")
    for name in ("a", "b", "c"):
        want = expected(flat(deltas, name), variant, 0.3, clamp, weight)
        np.testing.assert_allclose(found[name].numpy().ravel(), want, rtol=2e-4, atol=2e-6)


@pytest.mark.parametrize("short", [0, 1000])
@pytest.mark.parametrize("variant", ["es", "main"])
def test_the_whole_model_is_merged_by_the_formula(
    variant: str, short: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.merge.kernels.order_statistics._SHORT", short)  # counted, or held
    deltas, weight = vectors(3), [1.0, 1.0, 0.5]
    found = merged(deltas, variant=variant, ratio=0.2, weight=weight, scope="model")
    want = expected(flat(deltas, *SHAPES), variant, 0.2, 0.01, weight)
    np.testing.assert_allclose(flat([found], *SHAPES)[0], want, rtol=2e-4, atol=2e-6)


def test_the_authors_look_at_the_whole_model() -> None:
    deltas = vectors(2)
    official = merged(deltas, compat="official")
    model, tensor = (merged(deltas, scope=scope) for scope in ("model", "tensor"))
    assert all(torch.equal(official[name], model[name]) for name in SHAPES)
    assert not torch.equal(official["a"], tensor["a"])
    assert all(torch.equal(each, tensor[name]) for name, each in merged(deltas).items())


@pytest.mark.parametrize("scope", ["tensor", "model"])
@pytest.mark.parametrize("variant", ["es", "main"])
def test_a_zero_task_vector_wins_nothing(variant: str, scope: str) -> None:
    deltas = vectors(1)
    zero = {name: torch.zeros_like(value) for name, value in deltas[0].items()}
    found = merged([deltas[0], zero], variant=variant, scope=scope)
    names = ["a"] if scope == "tensor" else list(SHAPES)
    rows = flat([deltas[0], zero], *names)
    want = expected(rows, variant, 0.2, 0.01, [1.0, 1.0])
    np.testing.assert_allclose(flat([found], *names)[0], want, rtol=2e-4, atol=2e-6)
    assert any(bool(found[name].any()) for name in names)


def test_where_nobody_survives_the_base_stays() -> None:
    """The two agree on the first entry; scores of zero do not exceed the cut."""
    one, other = {"w": torch.tensor([3.0, 1.0, -1.0, 0.5])}, {"w": torch.tensor([3.0, -1.0, 1.0, 0.5])}
    found = merged([one, other], density=0.5, clamp=0.0)["w"]
    assert found.tolist() == [3.0, 0.0, 0.0, 0.0]


@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_no_density_is_the_base(scope: str) -> None:
    for value in merged(vectors(2), density=0.0, scope=scope).values():
        assert not value.any()


@pytest.mark.parametrize("shape", [(), (1,), (2,), (0, 3)])
@pytest.mark.parametrize("scope", ["tensor", "model"])
def test_small_and_empty_models_merge_and_share_no_memory_with_the_base(
    shape: tuple[int, ...], scope: str
) -> None:
    base = {"w": torch.ones(shape)}
    found = merge_tensors("pcb", base, [{"w": 2 * torch.ones(shape)}], {"scope": scope})["w"]
    assert found.shape == shape
    assert bool(found.isfinite().all())
    found.zero_()
    assert bool((base["w"] == 1).all())


def test_many_sources_do_not_overflow() -> None:
    deltas = vectors(100)
    found = merged(deltas, density=0.3)
    want = expected(flat(deltas, "a"), "es", 0.3, 0.01, [1.0] * 100)
    np.testing.assert_allclose(found["a"].numpy().ravel(), want, rtol=2e-3, atol=1e-4)


def test_shares_and_clipped_vectors_can_be_seen() -> None:
    deltas = torch.randn(3, 50, generator=torch.Generator().manual_seed(4))
    method: Pcb = bind(Pcb, {"ratio": 0.2}, 3, compat="evomerge")
    clipped, share = method.compete(deltas, method.bounds(lambda: iter([deltas]), 50))
    assert float(share.min()) == 0.0
    assert share.amax(1).tolist() == [1.0, 1.0, 1.0]
    assert (share > 0).sum(1).tolist() == [9, 9, 9]  # ten reach the cut, one of them is the cut
    assert torch.equal(clipped.sign(), deltas.sign())


@pytest.mark.parametrize(("word", "variant"), [("pcb-merging.py", "main"), ("pcb_ES.py", "es")])
def test_the_authors_files_name_the_variants(word: str, variant: str) -> None:
    deltas = vectors(2)
    one, other = merged(deltas, variant=word), merged(deltas, variant=variant)
    assert all(torch.equal(one[name], other[name]) for name in SHAPES)


def test_lambda_scales_the_mean() -> None:
    deltas = vectors(2)
    once, twice = merged(deltas), merged(deltas, scale=2.0)
    torch.testing.assert_close(twice["a"], 2 * once["a"])
