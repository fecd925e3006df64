"""OPCM against its definition with full singular vectors in float64, rescaled after every source."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.merge.methods import opcm
from evomerge.merge.methods.opcm import Opcm, Scales
from evomerge.parameters import declared

SHAPES = {
    "tall.weight": (9, 5),
    "wide.weight": (4, 8),
    "square.weight": (6, 6),
    "embed_tokens.weight": (7, 4),
    "norm.weight": (6,),
    "expert": (2, 3, 4),
    "scalar": (),
}
MATRICES = ("tall.weight", "wide.weight", "square.weight")
Vectors = dict[str, Tensor]


def vectors(count: int, seed: int = 0, shapes: dict[str, tuple[int, ...]] = SHAPES) -> list[Vectors]:
    generator = torch.Generator().manual_seed(seed)
    return [
        {name: 0.1 * torch.randn(shape, generator=generator) for name, shape in shapes.items()}
        for _ in range(count)
    ]


def low_rank(rank: int, count: int) -> list[Vectors]:
    generator = torch.Generator().manual_seed(5)
    return [
        {
            name: torch.randn(SHAPES[name][0], rank, generator=generator)
            @ torch.randn(rank, SHAPES[name][1], generator=generator)
            for name in MATRICES
        }
        for _ in range(count)
    ]


def merged(deltas: list[Vectors], *, compat: str = "evomerge", **params: Any) -> Vectors:
    """Return the merged task vectors over a base of zeros."""
    base = {name: torch.zeros_like(value) for name, value in deltas[0].items()}
    return merge_tensors("opcm", base, deltas, params, compat=compat)


def projected(merged: Any, delta: Any, alpha: float, *, none_beyond: bool) -> Any:
    u, s, vt = np.linalg.svd(merged, full_matrices=True)
    rank = int((s > 1e-6 * s[0] * max(merged.shape)).sum())
    share = s.cumsum() / s.sum() if rank else s
    r = int(np.argmax(share > alpha)) if (share > alpha).any() and alpha < 1 else 0
    if alpha >= 1 and not none_beyond:
        r = rank
    p = u.T @ delta @ vt.T
    p[np.arange(rank), np.arange(rank)] = 0
    p[:r, :r] = 0
    return u @ p @ vt


def expected(
    deltas: list[Vectors], alpha: float, order: list[int], *, none_beyond: bool = False
) -> tuple[dict[str, Any], float]:
    """Return the merged task vector and the last λ, by the definition: rescaled after each source."""
    rows = [{name: value.double().numpy() for name, value in deltas[i].items()} for i in order]

    def length(vector: dict[str, Any]) -> float:
        return float(np.sqrt(sum((value**2).sum() for value in vector.values())))

    total, scale, lengths = rows[0], 1.0, [length(rows[0])]
    for row in rows[1:]:
        lengths.append(length(row))
        linear = {name: total[name].ndim == 2 and "embed" not in name for name in row}
        total = {
            name: scale * total[name]
            + (projected(total[name], value, alpha, none_beyond=none_beyond) if linear[name] else value)
            for name, value in row.items()
        }
        scale = length(total) / float(np.mean(lengths))
        total = {name: value / scale for name, value in total.items()}
    return total, scale


def assert_merges(
    deltas: list[Vectors],
    alpha: float,
    order: list[int],
    compat: str = "evomerge",
    *,
    none_beyond: bool = False,
) -> None:
    want, _ = expected(deltas, alpha, order, none_beyond=none_beyond)
    positions = [order.index(source) / len(order) for source in range(len(order))]
    found = merged(deltas, compat=compat, alpha=alpha, order=positions)
    for name, value in want.items():
        np.testing.assert_allclose(found[name].numpy(), value, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("alpha", [0.0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("order", [[0, 1, 2], [2, 0, 1], [1, 2, 0]])
def test_sources_are_merged_by_the_definition(alpha: float, order: list[int]) -> None:
    assert_merges(vectors(3), alpha, order)


def test_many_sources() -> None:
    assert_merges(vectors(7), 0.5, [6, 0, 5, 1, 4, 2, 3])


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("alpha", [0.2, 0.9])
def test_directions_without_a_singular_value_take_nothing(rank: int, alpha: float) -> None:
    assert_merges(low_rank(rank, 3), alpha, [0, 1, 2])


def test_an_alpha_of_one_projects_everything_out() -> None:
    assert_merges(vectors(3), 1.0, [0, 1, 2])
    for compat in ("official", "fusion_bench"):
        assert_merges(vectors(3), 1.0, [0, 1, 2], compat, none_beyond=True)


@pytest.mark.parametrize("first", [True, False])
def test_a_zero_task_vector(first: bool) -> None:
    deltas = vectors(2)
    deltas.insert(0 if first else 2, {name: torch.zeros_like(value) for name, value in deltas[0].items()})
    assert_merges(deltas, 0.5, [0, 1, 2])


def test_zero_task_vectors_and_those_that_cancel_give_the_base() -> None:
    for one in ({"w": torch.zeros(3, 3)}, {"b": torch.ones(3)}):
        base = {name: 2 * torch.ones_like(value) for name, value in one.items()}
        models = [{name: 2 + sign * value for name, value in one.items()} for sign in (1, -1)]
        found = merge_tensors("opcm", base, models, {})
        for name, value in found.items():
            assert bool((value == 2).all())
            value.zero_()
            assert bool((base[name] == 2).all())


def test_one_source_is_itself() -> None:
    (delta,) = vectors(1)
    found = merged([delta])
    assert all(torch.equal(found[name], value) for name, value in delta.items())


def test_the_merged_vector_is_as_long_as_the_task_vectors_on_average() -> None:
    deltas = vectors(4)

    def length(vector: Vectors) -> float:
        return float(torch.cat([value.double().flatten() for value in vector.values()]).norm())

    assert length(merged(deltas)) == pytest.approx(np.mean([length(delta) for delta in deltas]), rel=1e-6)


def test_equal_values_keep_the_order_of_the_sources() -> None:
    deltas = vectors(3)
    same, given = merged(deltas, order=0.3), merged(deltas, order=[0.0, 0.5, 1.0])
    assert all(torch.equal(same[name], given[name]) for name in SHAPES)
    other = merged(deltas, order=[1.0, 0.5, 0.0])
    assert not torch.equal(same["tall.weight"], other["tall.weight"])


def test_lambdas_are_those_of_the_definition(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Scales] = []
    survey = Opcm.survey

    def spy(self: Opcm, stream: Any) -> Scales:
        seen.append(survey(self, stream))
        return seen[-1]

    monkeypatch.setattr(Opcm, "survey", spy)
    deltas = vectors(3)
    merged(deltas)
    assert seen[0].lambdas[0] == 1.0
    for count in (2, 3):
        _, scale = expected(deltas[:count], 0.5, list(range(count)))
        assert seen[0].lambdas[count - 1] == pytest.approx(scale, rel=1e-5)


def test_matrices_are_kept_from_the_survey_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    kept = merged(vectors(3))
    monkeypatch.setattr(opcm, "_KEPT_BYTES", 9 * 5 * 4)  # room for one of the three
    again = merged(vectors(3))
    assert all(torch.equal(kept[name], again[name]) for name in SHAPES)


def test_long_matrices_are_taken_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("evomerge.merge.kernels.projection._ROWS", 2)
    assert_merges(vectors(3), 0.5, [0, 1, 2])


def test_alpha_and_order_are_one_for_the_whole_model() -> None:
    """The survey asks one method for all tensors, so groups of layers could not have their own."""
    assert all(declared(Opcm)[name].spec.whole for name in ("alpha", "order"))
