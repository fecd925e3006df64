"""The compact form: how often each run of layers of each model is passed."""

from collections.abc import Callable

import pytest

from evomerge.errors import SpaceError
from evomerge.space import Genome
from tests.space.paths.conftest import changed, scales, stack

Make = Callable[..., Genome]


def test_there_is_a_count_per_run_and_model(genome: Make) -> None:
    found = genome("{form: blocks, models: [a, b], layers: 2, scale: {low: 0.5, high: 2, log: true}}")
    assert [(gene.name, gene.low, gene.high, gene.start) for gene in found.genes] == [
        ("path/times/a/L0-1", 0, 2, 1), ("path/times/b/L0-1", 0, 2, 0), ("path/scale/L0-1", 0.5, 2, 1.0),
        ("path/times/a/L2-3", 0, 2, 1), ("path/times/b/L2-3", 0, 2, 0), ("path/scale/L2-3", 0.5, 2, 1.0),
    ]  # fmt: skip
    assert [gene.whole for gene in found.genes] == [True, True, False] * 2


def test_a_search_begins_with_all_of_the_first_model(genome: Make) -> None:
    recipe = (found := genome("{form: blocks, models: [c, a, b]}")).decode(found.start)
    assert stack(recipe) == "c0 c1 c2 c3"
    assert (recipe.embed_from, recipe.head_from) == ("c", "c")


def test_runs_are_skipped_passed_and_repeated_in_the_order_of_the_models(genome: Make) -> None:
    found = genome("{form: blocks, models: [a, b], layers: [[0, 1], [2, 2], [3, 3]], times: 3, most: 16}")
    params = changed(
        found, **{"path__times__a__L0-1": 2, "path__times__b__L0-1": 1, "path__times__a__L2": 0},
        path__times__b__L3=3,
    )  # fmt: skip
    assert stack(found.decode(params)) == "a0 a1 a0 a1 b0 b1 a3 b3 b3 b3"


def test_the_scale_of_a_run_stands_where_it_begins(genome: Make) -> None:
    found = genome("{form: blocks, models: [a, b], layers: 2, scale: {low: 0.5, high: 2}, pinned: false}")
    params = changed(found, **{"path__times__a__L0-1": 2, "path__scale__L0-1": 0.8,
                               "path__times__a__L2-3": 0, "path__scale__L2-3": 1.2})  # fmt: skip
    recipe = found.decode(params)
    assert stack(recipe) == "a0 a1 a0 a1"
    assert scales(recipe) == [0.8, 1.0, 1.0, 1.0]
    assert found.idle(params) == {"path/scale/L2-3"}


@pytest.mark.parametrize(
    ("pinned", "bottom", "top", "expected"),
    [
        (True, 0, 1, "a0 a2 a3"), (True, 1, 0, "a0 a1 a3"), (True, 0, 0, "a0 a3"),
        (False, 0, 1, "a2 a3"), (False, 0, 0, "a0"),
    ],
)  # fmt: skip
def test_pinned_ends_are_put_where_they_are_missing(
    pinned: bool, bottom: int, top: int, expected: str, genome: Make
) -> None:
    found = genome(f"{{form: blocks, models: [a, b], layers: 2, pinned: {str(pinned).lower()}}}")
    params = changed(found, **{"path__times__a__L0-1": bottom, "path__times__a__L2-3": top})
    assert stack(found.decode(params)) == expected


def test_a_stack_that_is_too_long_loses_the_uppermost_of_what_is_repeated_most(genome: Make) -> None:
    found = genome("{form: blocks, models: [a, b], layers: 2, most: 8}")
    params = dict.fromkeys(found.start, 2)
    assert stack(found.decode(params)) == "a0 a1 b0 b1 a2 a3 b2 b3"
    params |= {"path/times/a/L0-1": 1}
    assert stack(found.decode(params)) == "a0 a1 b0 b1 a2 a3 b2 b3"
    tight = genome("{form: blocks, models: [a, b], layers: 2, most: 3}")
    assert stack(tight.decode(params)) == "a0 a1 a3"


def test_a_scale_idles_where_its_run_has_been_cut_off(genome: Make) -> None:
    found = genome("{form: blocks, models: [a, b], layers: 2, most: 2, scale: {low: 0.5, high: 2}}")
    params = {**found.start, "path/times/a/L2-3": 1, "path/times/a/L0-1": 1}
    assert stack(found.decode(params)) == "a0 a3"
    assert found.idle(params) == {"path/scale/L0-1", "path/scale/L2-3"}
    room = genome("{form: blocks, models: [a, b], layers: 2, most: 3, scale: {low: 0.5, high: 2}}")
    assert stack(room.decode(params)) == "a0 a1 a3"
    assert room.idle(params) == {"path/scale/L2-3"}


def test_many_passes_are_cut_in_one_go(genome: Make) -> None:
    found = genome("{form: blocks, models: [a, b, c], layers: each, times: 1024, most: 100}", layers=40)
    path = stack(found.decode(dict.fromkeys(found.start, 1024))).split()
    assert path[:4] == ["a0", "b0", "c0", "a1"]
    assert len(path) == 100


def test_ends_are_genes_where_there_is_a_choice(genome: Make) -> None:
    found = genome("{form: blocks, models: [a, b], embed: [b, c], head: c}")
    assert [gene.name for gene in found.genes if gene.choices] == ["path/embed"]
    recipe = found.decode(changed(found, path__embed="c"))
    assert (recipe.embed_from, recipe.head_from) == ("c", "c")
    assert found.decode(found.start).embed_from == "b"
    assert set(found.decode(found.start).models) == {"a", "b", "c"}


def test_runs_must_tile_the_models(genome: Make) -> None:
    with pytest.raises(SpaceError, match="must cover layers 0 to 3"):
        _ = genome("{form: blocks, layers: [[0, 1]]}").genes


MERGE = "{base: c, method: [task_arithmetic, ties], layers: 1}"


def test_the_merge_has_genes_where_the_path_may_use_it(genome: Make) -> None:
    alone, both = (
        genome(f"{{form: blocks, models: {models}, layers: 1}}", MERGE)
        for models in ("[a, b]", "[a, merged]")
    )
    assert {gene.name.partition("/")[0] for gene in alone.genes} == {"path"}
    assert {gene.name.partition("/")[0] for gene in both.genes} == {"method", "weight", "density", "path"}


def test_the_merge_is_in_the_recipe_only_where_the_path_takes_layers_of_it(genome: Make) -> None:
    found = genome("{form: blocks, models: [a, merged], layers: 1}", MERGE)
    assert not found.decode(found.start).merges
    merge_genes = {gene.name for gene in found.genes if not gene.name.startswith("path/")}
    assert found.idle(found.start) == merge_genes
    params = changed(found, **{"path__times__merged__L0-3": 1})
    recipe = found.decode(params)
    assert stack(recipe) == "a0 a1 a2 a3 merged0 merged1 merged2 merged3"
    assert recipe.merges["merged"].sources == ("a", "b")
    assert found.idle(params) == {name for name in merge_genes if name.startswith("density")}
    assert recipe.key != found.decode({**params, "weight/a/L0-3": 0.1}).key
