"""Heat maps show the recipe: the value at each layer and module, per source, and the order of a path."""

from __future__ import annotations

import re

import pytest

from evomerge.recipe import Ends, Group, Merge, ModelRef, Recipe, Slot
from evomerge.report.figures.coefficients import heat_maps, panels

MODELS = {name: ModelRef(source=f"/{name}") for name in ("base", "math", "lang")}
MERGE = Merge(
    method="ties",
    base="base",
    sources=("math", "lang"),
    params={"weight": 1.0, "density": {"math": 0.5, "lang": (0.2, 0.8)}, "scale": 1.5},
    groups=(
        Group(modules=("attn",), layers=(0, 1), params={"weight": {"math": 0.7, "lang": 1.2}}),
        Group(modules=("embed",), params={"weight": {"math": 0.1, "lang": 0.2}}),
    ),
)


def test_a_panel_has_the_value_that_is_in_force_at_each_place() -> None:
    found = {panel.title: panel for panel in panels(MERGE, 4)}
    assert list(found) == [
        "weight of math (ties)", "weight of lang (ties)", "weight (ties)",
        "density of math (ties)", "density of lang (ties)", "scale (ties)",
    ]  # fmt: skip
    math = found["weight of math (ties)"].values
    assert math == {(None, "embed"): 0.1, (0, "attn"): 0.7, (1, "attn"): 0.7}
    rest = found["weight (ties)"].values
    assert (0, "attn") not in rest
    assert rest[2, "attn"] == rest[0, "mlp"] == rest[None, "head"] == 1.0
    lang = found["density of lang (ties)"].values
    assert [lang[layer, "mlp"] for layer in range(4)] == pytest.approx([0.2, 0.4, 0.6, 0.8])


def test_the_neutral_value_is_the_methods_default() -> None:
    assert {panel.neutral for panel in panels(MERGE, 4) if panel.title.startswith("weight")} == {1.0}


def test_all_sources_of_a_merge_have_one_scale() -> None:
    figures = [
        each for each in heat_maps(Recipe(models=MODELS, merges={"m": MERGE}), 4) if "weight" in each.title
    ]
    assert all(">0.1</text>" in each.svg for each in figures)
    assert all(">1.9</text>" in each.svg for each in figures)


def test_rows_that_are_equal_are_one_row() -> None:
    figures = {
        figure.title: str(figure.svg) for figure in heat_maps(Recipe(models=MODELS, merges={"m": MERGE}), 4)
    }
    assert ">attn, mlp, rest</text>" in figures["scale (ties)"]
    assert ">mlp, rest</text>" in figures["weight (ties)"]
    assert "layer 3, mlp, rest: 1.000" in figures["weight (ties)"]


def test_a_path_shows_which_layer_stands_where_and_its_scale() -> None:
    path = (Slot(model="math", layer=0), Slot(model="lang", layer=2, scale=0.9), Slot(model="math", layer=1))
    recipe = Recipe(models=MODELS, path=path, ends=Ends(embed="lang", head="math"))
    (figure,) = heat_maps(recipe, 4)
    told = re.findall(r"<title>(.*?)</title>", str(figure.svg))
    assert told == [
        "slot 0: layer 0 of math, scale 1.000", "slot 1: layer 2 of lang, scale 0.900",
        "slot 2: layer 1 of math, scale 1.000", "embed of lang", "head of math",
    ]  # fmt: skip
    assert "multiplied by" in figure.caption


def test_eighty_layers_fit() -> None:
    figures = heat_maps(Recipe(models=MODELS, merges={"m": MERGE}), 80)
    labels = re.findall(
        r'y="\d+\.0" text-anchor="middle" font-size="12" class="">(\d+)</text>', str(figures[-1].svg)
    )
    assert labels == [str(layer) for layer in range(0, 80, 5)]
