"""The paper's form: a switch for every place of the row of all layers."""

import random
import statistics
from collections.abc import Callable

import numpy as np
import pytest

from evomerge.controller.unit_cube import UnitCube
from evomerge.errors import SpaceError
from evomerge.space import Genome
from tests.space.paths.conftest import changed, scales, stack

Make = Callable[..., Genome]


def test_there_is_a_switch_and_a_scale_per_place(genome: Make) -> None:
    found = genome("{form: slots, models: [a, b], repeats: 2}")
    names = [gene.name for gene in found.genes]
    assert len([name for name in names if "/scale/" in name]) == 16
    assert len([name for name in names if "/on/" in name]) == 14  # two are pinned
    assert {"path/on/1/a/L0", "path/on/1/a/L3"}.isdisjoint(names)
    assert {"path/on/1/a/L1", "path/on/1/b/L0", "path/on/2/a/L3", "path/scale/1/a/L0"} <= set(names)


def test_a_search_begins_with_all_of_the_first_model(genome: Make) -> None:
    recipe = (found := genome("{form: slots, models: [b, a]}")).decode(found.start)
    assert stack(recipe) == "b0 b1 b2 b3"
    assert scales(recipe) == [1.0] * 4
    assert (recipe.embed_from, recipe.head_from) == ("b", "b")
    assert not recipe.merges


def test_a_place_is_passed_where_its_gene_is_above_zero(genome: Make) -> None:
    found = genome("{form: slots, models: [a, b], repeats: 2}")
    params = changed(found, path__on__1__a__L2=-0.01, path__on__1__b__L1=0.01, path__on__2__a__L1=0.2)
    assert stack(found.decode(params)) == "a0 a1 b1 a1 a3"
    assert stack(found.decode({**params, "path/on/1/b/L1": -0.001})) == "a0 a1 a1 a3"


def test_the_last_layer_stays_last_only_where_it_is_pinned(genome: Make) -> None:
    found = genome("{form: slots, models: [a, b], repeats: 1, pinned: false}")
    params = changed(found, path__on__1__b__L0=0.01)
    assert stack(found.decode(params)) == "a0 a1 a2 a3 b0"
    off = {name: -0.05 for name in found.start if "/on/" in name}
    assert len(found.decode({**params, **off}).path or ()) == 1


def test_a_scale_is_that_of_its_place_and_idle_where_that_is_off(genome: Make) -> None:
    found = genome("{form: slots, models: [a, b], repeats: 1}")
    names = {f"path/scale/1/{model}/L{layer}": 0.6 + 0.1 * i for i, (model, layer) in
             enumerate((m, n) for m in "ab" for n in range(4))}  # fmt: skip
    params = {**changed(found, path__on__1__b__L1=0.05, path__on__1__a__L2=-0.1), **names}
    recipe = found.decode(params)
    assert stack(recipe) == "a0 a1 b1 a3"
    assert scales(recipe) == pytest.approx([0.6, 0.7, 1.1, 0.9])
    idle = {f"path/scale/1/{place}" for place in ("a/L2", "b/L0", "b/L2", "b/L3")}
    assert found.idle(params) == idle
    assert found.decode({**params, **dict.fromkeys(idle, 1.4)}).key == recipe.key


@pytest.mark.parametrize("scale", ["1.0", "0.5"])
def test_scales_need_not_be_searched(scale: str, genome: Make) -> None:
    found = genome(f"{{form: slots, models: [a, b], scale: {scale}}}")
    assert not [gene for gene in found.genes if "scale" in gene.name]
    assert not found.idle(found.start)
    assert set(scales(found.decode(found.start))) == {float(scale)}


def test_of_too_many_the_weakest_stay_off(genome: Make) -> None:
    found = genome("{form: slots, models: [a, b], repeats: 1, most: 5, scale: 1}")
    params = changed(
        found, path__on__1__a__L1=0.7, path__on__1__a__L2=0.001,
        path__on__1__b__L1=0.20, path__on__1__b__L2=0.24,
    )  # fmt: skip
    assert stack(found.decode(params)) == "a0 a1 b1 b2 a3"


def test_a_room_that_is_too_small_is_refused(genome: Make) -> None:
    with pytest.raises(SpaceError, match=r"at most 1 layer has no room for a first and a last layer"):
        _ = genome("{form: slots, most: 1}").genes


def test_models_of_one_layer_have_one_pinned_end(genome: Make) -> None:
    found = genome("{form: slots, models: [a, b], repeats: 1, most: 1}", layers=1)
    assert stack(found.decode(found.start)) == "a0"


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_a_search_of_few_layers_begins_with_all_of_them(layers: int, genome: Make) -> None:
    found = genome("{form: slots, models: [a, b], pinned: false}", layers=layers)
    assert stack(found.decode(found.start)) == " ".join(f"a{layer}" for layer in range(layers))


@pytest.mark.parametrize("drawn", ["uniform", "cma"])
def test_candidates_begin_near_all_of_the_first_model(drawn: str, genome: Make) -> None:
    """On average a candidate lacks about one layer of the first model, and has about one other."""
    found = genome("{form: slots, models: [a, b, c], repeats: 3, scale: 1}", layers=12)
    cube, rng, draw = UnitCube(found.genes), np.random.default_rng(0), random.Random(0)
    lacking, others = [], []
    for _ in range(300):
        if drawn == "cma":
            params = cube.decode(np.clip(rng.normal(cube.start, 1 / 6), 0, 1))
        else:
            params = {gene.name: gene.at(draw.random()) for gene in found.genes}
        path = found.decode(params).path or ()
        own = sum(slot.model == "a" for slot in path)
        lacking.append(12 - own)
        others.append(len(path) - own)
    assert 0.4 < statistics.fmean(lacking) < 1.4
    assert 0.5 < statistics.fmean(others) < 1.4
