"""SCE: select, calculate, erase."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.merge.methods import sce


def deltas(count: int, *shape: int, size: float = 0.1) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [size * (1 + i) * torch.randn(shape, generator=generator) for i in range(count)]


def merge(changes: list[Tensor], params: dict[str, Any] | None = None, *, compat: str = "evomerge") -> Tensor:
    """Return what the merge adds to a base of zeros."""
    base = {"w": torch.zeros_like(changes[0])}
    return merge_tensors("sce", base, [{"w": x} for x in changes], params or {}, compat=compat)["w"]


def by_definition(
    changes: list[Tensor], topk: float, *, everywhere: bool = True, uniform: bool = False
) -> Tensor:
    x = np.stack([change.double().numpy() for change in changes])
    mask = np.ones(x[0].size)
    if topk < 1:
        variance = ((x - x.mean(axis=0)) ** 2).mean(axis=0).ravel()
        kept = np.argsort(-variance, kind="stable")[: int(topk * np.count_nonzero(variance))]
        mask = np.zeros(variance.size)
        mask[kept] = 1
    selected = x * mask.reshape(x[0].shape)
    q = (selected**2).reshape(len(x), -1).mean(axis=1)
    q = np.full(len(x), 1 / len(x)) if uniform else q / q.sum()
    used = selected if everywhere else x
    majority = np.where(used.sum(axis=0) >= 0, 1.0, -1.0)
    share = q.reshape(-1, *[1] * (x.ndim - 1)) * (np.sign(used) == majority)
    total = share.sum(axis=0)
    return torch.from_numpy((share * used).sum(axis=0) / np.where(total == 0, 1.0, total))


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found.double(), expected.double(), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("topk", [0.1, 0.29, 0.5, 0.99, 1.0])
@pytest.mark.parametrize("applies_to", ["deltas", "coefficients"])
def test_is_the_definition(topk: float, applies_to: str) -> None:
    changes = deltas(3, 5, 9)
    found = merge(changes, {"select_topk": topk, "select_applies_to": applies_to})
    close(found, by_definition(changes, topk, everywhere=applies_to == "deltas"))


def test_what_is_not_selected_stays_at_the_base_except_in_the_authors_code() -> None:
    changes = deltas(3, 40)
    params = {"select_topk": 0.25}
    assert int(merge(changes, params).count_nonzero()) == 10
    assert torch.equal(merge(changes, params, compat="mergekit"), merge(changes, params))
    official = merge(changes, params, compat="official")
    assert int(official.count_nonzero()) == 40
    assert torch.equal(official, merge(changes, {**params, "select_applies_to": "coefficients"}))


def test_small_task_vectors_keep_their_coefficients_but_not_in_mergekit() -> None:
    changes = deltas(3, 40, size=1e-4)
    close(merge(changes), by_definition(changes, 1.0))
    close(merge(changes, compat="official"), by_definition(changes, 1.0))
    close(merge(changes, compat="mergekit"), by_definition(changes, 1.0, uniform=True))
    assert not torch.allclose(merge(changes), merge(changes, compat="mergekit"), rtol=1e-2)
    large = deltas(3, 40)
    close(merge(large, compat="mergekit"), by_definition(large, 1.0))


@pytest.mark.parametrize("applies_to", ["deltas", "coefficients"])
@pytest.mark.parametrize("compat", ["evomerge", "mergekit", "official"])
def test_selecting_nothing_is_the_base(applies_to: str, compat: str) -> None:
    changes = deltas(3, 2, 2)
    for topk in (0.0, 0.2):  # of four entries a fifth is none
        params = {"select_topk": topk, "select_applies_to": applies_to}
        assert torch.equal(merge(changes, params, compat=compat), torch.zeros(2, 2))


def test_equal_models_have_nothing_to_select() -> None:
    change = deltas(1, 5)[0]
    for count in (1, 2, 3, 7):
        assert torch.equal(merge([change] * count, {"select_topk": 0.9}), torch.zeros(5))
        close(merge([change] * count), change)


def test_selects_of_the_entries_that_vary() -> None:
    fixed = torch.tensor([1.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    other = torch.tensor([1.0, 1.0, 1.0, 1.0, 1.0, 2.0])
    found = merge([fixed, other], {"select_topk": 0.5})  # half of the two that vary
    assert torch.equal(found, torch.tensor([0.0, 0.0, 0.0, 0.0, 0.0, 2.0]))


def test_of_equal_variances_the_first_are_selected_and_no_more() -> None:
    found = merge([torch.zeros(10), torch.ones(10)], {"select_topk": 0.3})
    assert torch.equal(found, torch.tensor([1.0] * 3 + [0.0] * 7))


def test_a_vote_without_a_majority_is_positive() -> None:
    found = merge([torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])])
    assert torch.equal(found, torch.tensor([1.0, 0.0]))


@pytest.mark.parametrize("block", [1, 3, 1 << 22])
def test_variances_do_not_depend_on_the_block(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sce, "_BLOCK", block)
    changes = deltas(3, 5, 9)
    close(merge(changes, {"select_topk": 0.4}), by_definition(changes, 0.4))
