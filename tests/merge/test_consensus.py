"""Consensus: which entries a task uses, how many tasks must, and of which sum."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.merge.kernels.tall_masks import consensus_mask, task_masks

ONE, OTHER, THIRD = (
    torch.randn((6, 11), generator=torch.Generator().manual_seed(seed)) for seed in (1, 2, 3)
)


def merged(*deltas: Tensor, compat: str = "evomerge", **params: Any) -> Tensor:
    """Return the merged task vector of `deltas` over a base of zeros."""
    models = [{"w": each} for each in deltas]
    return merge_tensors(
        "consensus", {"w": torch.zeros_like(deltas[0])}, models, params, compat=compat
    )["w"]  # fmt: skip


@pytest.mark.parametrize("compat", ["evomerge", "official"])
@pytest.mark.parametrize("k", [0, 1, 2, 3, 4])
def test_entries_stay_where_enough_tasks_use_them(k: int, compat: str) -> None:
    lambdas = (0.5, 0.7, 0.6)
    deltas = np.stack([each.double().numpy() for each in (ONE, OTHER, THIRD)])
    tau = deltas.sum(0)
    used = np.stack([np.abs(d) > lam * np.abs(tau - d) for d, lam in zip(deltas, lambdas, strict=True)])
    expected = torch.from_numpy(0.3 * tau * (used.sum(0) >= k)).float()
    found = merged(ONE, OTHER, THIRD, tall_lambda=list(lambdas), k=k, scaling=0.3, compat=compat)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    masks = task_masks(torch.stack([ONE, OTHER, THIRD]), ONE + OTHER + THIRD, lambdas)
    assert torch.equal(masks, torch.from_numpy(used))
    assert torch.equal(consensus_mask(masks, k), torch.from_numpy(used.sum(0) >= k))


def test_by_default_two_tasks_must_use_an_entry() -> None:
    params: dict[str, Any] = {"tall_lambda": 0.4, "k": 2, "lambda": 0.5, "multi_task_vector": "sum"}
    assert torch.equal(merged(ONE, OTHER, THIRD), merged(ONE, OTHER, THIRD, **params))


def test_zero_tasks_are_enough_for_task_arithmetic_and_too_many_give_the_base() -> None:
    models = [{"w": ONE}, {"w": OTHER}]
    plain = merge_tensors("task_arithmetic", {"w": THIRD}, models, {"lambda": 0.5})["w"]
    found = merge_tensors("consensus", {"w": THIRD}, models, {"k": 0})["w"]
    torch.testing.assert_close(found, plain, rtol=1e-6, atol=1e-6)
    assert torch.equal(merge_tensors("consensus", {"w": THIRD}, models, {"k": 3})["w"], THIRD)


def test_a_task_must_exceed_the_others_strictly() -> None:
    deltas = torch.tensor([2.0, 1.9, 0.0]), torch.tensor([2.0, 2.0, 0.0])
    masks = task_masks(torch.stack(deltas), deltas[0] + deltas[1], (1.0, 1.0))
    assert masks.tolist() == [[False, False, False], [False, True, False]]


def test_masks_are_made_before_scaling() -> None:
    torch.testing.assert_close(merged(ONE, OTHER, scaling=0.8), 2 * merged(ONE, OTHER, scaling=0.4))


def test_a_single_task_agrees_with_itself_alone() -> None:
    assert torch.equal(merged(ONE, k=1, scaling=1.0), ONE)
    assert not merged(ONE, k=2).any()


@pytest.mark.parametrize("compat", ["evomerge", "official"])
def test_the_sum_may_be_that_of_ties(compat: str) -> None:
    ties, near = {"density": 0.2, "merge": "sum"}, ONE + 0.3 * OTHER  # near, so that they agree
    base, models = {"w": torch.zeros(6, 11)}, [{"w": ONE}, {"w": near}]
    tau = merge_tensors("ties", base, models, ties, compat=compat)["w"]
    used = task_masks(torch.stack([ONE, near]), tau, (0.4, 0.4)).sum(0) >= 1
    found = merged(ONE, near, k=1, scaling=0.5, multi_task_vector="ties", compat=compat)
    torch.testing.assert_close(found, 0.5 * tau * used)
    assert not torch.equal(found, merged(ONE, near, k=1, scaling=0.5, compat=compat))


def test_the_authors_ties_trims_over_the_whole_model() -> None:
    """Of ten entries it keeps int(10 · 0.2) + 1; ours keeps a fifth of each tensor."""
    base = {"small": torch.zeros(5), "large": torch.zeros(5)}
    model = {"small": torch.arange(1.0, 6.0), "large": torch.arange(10.0, 15.0)}
    params = {"k": 0, "scaling": 1.0, "multi_task_vector": "ties"}
    official = merge_tensors("consensus", base, [model], params, compat="official")
    assert not official["small"].any()
    assert torch.equal(official["large"], torch.tensor([0.0, 0.0, 12.0, 13.0, 14.0]))
    own = merge_tensors("consensus", base, [model], params)
    assert torch.equal(own["small"], torch.tensor([0.0, 0.0, 0.0, 0.0, 5.0]))
