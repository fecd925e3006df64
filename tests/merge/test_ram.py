"""RAM: the mean over those who changed an entry."""

from typing import Any

import torch

from evomerge import merge_tensors

CHANGES = torch.tensor(
    [
        [0.3, 0.2, 0.0, 1e-5, -2e-5],
        [0.5, 0.0, 0.0, 9e-6, 0.4],
        [-0.2, 1e-6, 0.0, -1e-6, 0.0],
    ]
)


def merge(changes: torch.Tensor, params: dict[str, Any] | None = None, base: float = 0.0) -> torch.Tensor:
    start = torch.full_like(changes[0], base)
    return merge_tensors("ram", {"w": start}, [{"w": start + x} for x in changes], params or {})["w"]


def test_averages_over_the_models_that_changed_an_entry() -> None:
    torch.testing.assert_close(merge(CHANGES), torch.tensor([0.2, 0.2, 0.0, 0.0, 0.19999]))


def test_a_change_as_large_as_the_limit_is_none() -> None:
    assert torch.equal(merge(torch.tensor([[0.5, 0.25]]), {"negligible": 0.25}), torch.tensor([0.5, 0.0]))


def test_epsilon_is_another_word_for_what_is_negligible() -> None:
    found = merge(CHANGES, {"epsilon": 0.25})
    torch.testing.assert_close(found, torch.tensor([0.4, 0.0, 0.0, 0.0, 0.4]))


def test_starts_from_the_base() -> None:
    changes = torch.tensor([[0.5, 0.0], [0.25, 0.0]])
    assert torch.equal(merge(changes, base=2.0), torch.tensor([2.375, 2.0]))
