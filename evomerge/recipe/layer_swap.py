"""Layer swapping: the outer layers of one expert, the inner layers of another.

Bandarkar et al. 2024, https://arxiv.org/abs/2410.01335: a language expert gives the bottom and top layers, a
task expert those between; weights, not activations, are averaged in the transitions.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Literal, TypeAlias

from evomerge.errors import RecipeError
from evomerge.recipe.merge import IN_LAYERS, Group, Merge

EndsFrom: TypeAlias = Literal["language", "task", "average"]

_LANGUAGE_IN_ENDS = {"language": 1.0, "task": 0.0, "average": 0.5}
_OUTSIDE = ("embed", "head")


def layer_swap(
    task: str,
    language: str,
    *,
    layers: int,
    bottom: int,
    top: int,
    transition: int = 0,
    ends_from: EndsFrom = "language",
) -> Merge:
    """Return a merge with the outer layers of `language` and the inner ones of `task`.

    Both models have so many `layers`. `bottom` and `top` count the layers that are wholly `language`'s; the
    `transition` layers next to either are the mean of both models. `ends_from` says whose embedding,
    final norm and head it has: all of one side, since a tied model has one tensor for two of them.

    Raises `RecipeError` if the layers do not suffice.
    """
    weights = language_weights(layers, bottom=bottom, top=top, transition=transition)
    return layer_curve(task, language, weights, ends_from=ends_from)


def layer_curve(
    task: str, language: str, weights: Sequence[float], *, ends_from: EndsFrom = "language"
) -> Merge:
    """Return a merge whose layer i is `weights[i]` times that of `language`, and for the rest that of `task`.

    `ends_from` as for `layer_swap`. Raises `RecipeError` if it is none of these.
    """
    if ends_from not in _LANGUAGE_IN_ENDS:
        raise RecipeError(f"`ends_from` is one of {', '.join(_LANGUAGE_IN_ENDS)}, found {ends_from!r}")
    groups = [_group(task, language, _LANGUAGE_IN_ENDS[ends_from], modules=_OUTSIDE)]
    for weight, run in groupby(range(len(weights)), key=lambda layer: weights[layer]):
        first, *rest = run
        span = (first, rest[-1] if rest else first)
        groups.append(_group(task, language, weight, modules=IN_LAYERS, layers=span))
    return Merge(method="linear", sources=(task, language), groups=tuple(groups))


def language_weights(layers: int, *, bottom: int, top: int, transition: int) -> tuple[float, ...]:
    """Return the language expert's share of each layer: 1 outside, 0.5 in the transitions, 0 inside."""
    counts = {"bottom": bottom, "top": top, "transition": transition}
    for name, count in counts.items():
        if type(count) is not int or count < 0:
            raise RecipeError(f"`{name}` must be a whole number of layers from 0, found {count!r}")
    if bottom + top + 2 * transition > layers:
        raise RecipeError(
            f"bottom {bottom}, top {top} and two transitions of {transition} need "
            f"{bottom + top + 2 * transition} layers, and the models have {layers}"
        )
    inner = layers - bottom - top - 2 * transition
    return (
        *[1.0] * bottom, *[0.5] * transition, *[0.0] * inner, *[0.5] * transition, *[1.0] * top,
    )  # fmt: skip


def _group(
    task: str,
    language: str,
    weight: float,
    *,
    modules: tuple[str, ...],
    layers: tuple[int, int] | None = None,
) -> Group:
    return Group(modules=modules, layers=layers, params={"weight": {task: 1.0 - weight, language: weight}})
