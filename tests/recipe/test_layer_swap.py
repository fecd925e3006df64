"""Layer swapping as a recipe."""

from typing import Any

import pytest

from evomerge.errors import RecipeError
from evomerge.recipe import layer_swap
from evomerge.recipe.layer_swap import language_weights


def language_share(merge: Any, layer: int | None, module: str, layers: int) -> float:
    name = "model.norm.weight" if layer is None else f"model.layers.{layer}.x.weight"
    weight = merge.settings(name, layer, module, layers)["weight"]
    assert weight["task"] + weight["lang"] == 1.0
    return float(weight["lang"])


@pytest.mark.parametrize(
    ("bottom", "top", "transition", "expected"),
    [
        (1, 1, 0, [1, 0, 0, 0, 0, 0, 1]),
        (2, 1, 1, [1, 1, 0.5, 0, 0, 0.5, 1]),
        (1, 0, 2, [1, 0.5, 0.5, 0, 0, 0.5, 0.5]),
        (2, 3, 1, [1, 1, 0.5, 0.5, 1, 1, 1]),
        (0, 0, 0, [0, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_every_layer_has_its_share_of_the_language_expert(
    bottom: int, top: int, transition: int, expected: list[float]
) -> None:
    merge = layer_swap("task", "lang", layers=7, bottom=bottom, top=top, transition=transition)
    for module in ("attn", "mlp", "rest"):
        assert [language_share(merge, layer, module, 7) for layer in range(7)] == expected


@pytest.mark.parametrize(("ends_from", "share"), [("language", 1.0), ("task", 0.0), ("average", 0.5)])
def test_the_ends_are_of_one_side(ends_from: Any, share: float) -> None:
    merge = layer_swap("task", "lang", layers=4, bottom=1, top=1, ends_from=ends_from)
    assert [language_share(merge, None, module, 4) for module in ("embed", "head")] == [share, share]


def test_the_language_expert_has_the_ends_unless_asked() -> None:
    merge = layer_swap("task", "lang", layers=4, bottom=1, top=1)
    assert language_share(merge, None, "embed", 4) == 1.0


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ((2, 1, 1), "bottom 2, top 1 and two transitions of 1 need 5 layers, and the models have 4"),
        ((-1, 1, 0), "`bottom` must be a whole number of layers from 0, found -1"),
        ((1, 1, 0.5), "`transition` must be a whole number of layers from 0, found 0.5"),
    ],
)
def test_layers_that_do_not_suffice_are_refused(counts: tuple[Any, Any, Any], message: str) -> None:
    bottom, top, transition = counts
    with pytest.raises(RecipeError, match=message):
        language_weights(4, bottom=bottom, top=top, transition=transition)


def test_ends_of_no_side_are_refused() -> None:
    ends: Any = "both"
    with pytest.raises(RecipeError, match="`ends_from` is one of language, task, average, found 'both'"):
        layer_swap("task", "lang", layers=4, bottom=1, top=1, ends_from=ends)
