"""Greedy soup, step by step and on plain tensors."""

import math

import pytest
import torch
from torch import Tensor

from evomerge import greedy_soup
from evomerge.merge.soup import Soup, greedy


def cooked(alone: dict[str, float | None], scores: dict[str, float | None]) -> tuple[Soup, list[str]]:
    """Return the soup when averages score as `scores` says, and the averages that were asked for."""
    tasting, asked = greedy(alone), []
    answer: float | None = None
    while True:
        try:
            asked.append("".join(tasting.send(answer)))
        except StopIteration as done:
            return done.value, asked
        answer = scores[asked[-1]]


def test_models_are_tried_best_first_and_kept_only_if_strictly_better() -> None:
    alone: dict[str, float | None] = {"a": 0.2, "b": 0.5, "c": 0.4, "d": 0.3}
    soup, asked = cooked(alone, {"bc": 0.5, "bd": 0.6, "bda": 0.7})
    assert asked == ["bc", "bd", "bda"]
    assert soup == Soup(ingredients=("b", "d", "a"), order=("b", "c", "d", "a"), score=0.7)


def test_of_equal_models_the_earlier_comes_first() -> None:
    soup, asked = cooked({"a": 0.5, "b": 0.5, "c": 0.5}, {"ab": 0.4, "ac": 0.4})
    assert (asked, soup.order) == (["ab", "ac"], ("a", "b", "c"))


def test_what_cannot_be_scored_is_left_out() -> None:
    soup, asked = cooked({"a": math.nan, "b": None, "c": 0.1, "d": 0.05}, {"cd": math.nan})
    assert (asked, soup.ingredients, soup.score) == (["cd"], ("c",), 0.1)
    with pytest.raises(ValueError, match="found none"):
        cooked({"a": None}, {})


def test_a_soup_of_tensors_is_the_plain_average_of_its_ingredients() -> None:
    generator = torch.Generator().manual_seed(1)
    good = [torch.randn(4, 3, generator=generator) for _ in range(3)]
    target = sum(good, torch.zeros(4, 3)) / 3
    models = {"a": {"w": good[0]}, "far": {"w": target + 50}, "b": {"w": good[1]}, "c": {"w": good[2]}}

    def score(state: dict[str, Tensor]) -> float:
        return -float((state["w"] - target).square().sum())

    merged, soup = greedy_soup(models, score)
    assert set(soup.ingredients) == {"a", "b", "c"}
    torch.testing.assert_close(merged["w"], target)
    assert soup.score == pytest.approx(score(merged), abs=1e-9)
