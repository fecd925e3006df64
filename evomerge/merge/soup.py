"""Greedy soup: add one model after another to a plain average, and keep those that help.

Wortsman et al. 2022, https://arxiv.org/abs/2203.05482: one pass over the models, best first; a rejected model
is never tried again. Of models that score the same the earlier one comes first here, the later one in
the authors' code. The score to accept by flatters the soup: report one from other items.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class Soup:
    """The models in a soup in the order of adding, the order in which all were tried, and its score."""

    ingredients: tuple[str, ...]
    order: tuple[str, ...]
    score: float


Tasting: TypeAlias = Generator[tuple[str, ...], float | None, Soup]
"""Yields the ingredients of an average to score, is sent its score (higher is better, None: failed)."""


def greedy(alone: Mapping[str, float | None]) -> Tasting:
    """Return the procedure over models that score so `alone` (higher is better; None or NaN: not at all).

    Raises `ValueError` if none of them has a score.
    """
    scores = {name: score for name, score in alone.items() if score is not None and not math.isnan(score)}
    if not scores:
        raise ValueError("a greedy soup needs a model that can be scored, found none")
    first, *others = sorted(scores, key=lambda name: -scores[name])
    chosen: tuple[str, ...] = (first,)
    best = scores[first]
    for name in others:
        score = yield (*chosen, name)
        if score is not None and score > best:
            chosen, best = (*chosen, name), score
    return Soup(ingredients=chosen, order=(first, *others), score=best)
