"""Fewer layers, or some twice: ranked by influence and genes."""

from collections.abc import Callable

import pytest

from evomerge.errors import SpaceError
from evomerge.space import Genome
from tests.space.paths.conftest import changed, stack

Make = Callable[..., Genome]
INFLUENCE = {"a": (0.9, 0.3, 0.1, 0.2, 0.5, 0.8), "b": (0.5, 0.1, 0.2, 0.3, 0.4, 0.6)}


def test_there_is_a_count_and_a_gene_per_layer_that_may_go(genome: Make) -> None:
    found = genome("{form: prune, models: [a]}", layers=12)
    names = [gene.name for gene in found.genes]
    assert names == ["path/removed", *(f"path/keep/L{layer}" for layer in range(1, 11))]
    assert (found.genes[0].low, found.genes[0].high, found.genes[0].start) == (0, 3, 0)
    assert stack(found.decode(found.start)) == " ".join(f"a{layer}" for layer in range(12))


@pytest.mark.parametrize(("removed", "left"), [(1, "a0 a1 a3 a4 a5"), (2, "a0 a1 a4 a5"), (3, "a0 a4 a5")])
def test_the_layers_of_least_influence_go_first(removed: int, left: str, genome: Make) -> None:
    found = genome("{form: prune, models: [a], count: {low: 0, high: 4}}", layers=6, influence=INFLUENCE)
    assert stack(found.decode(changed(found, path__removed=removed))) == left


def test_a_gene_changes_a_layers_rank(genome: Make) -> None:
    found = genome("{form: prune, models: [a], count: 1}", layers=6, influence=INFLUENCE)
    assert stack(found.decode(found.start)) == "a0 a1 a3 a4 a5"
    params = changed(found, path__keep__L2=0.9, path__keep__L3=0.6)  # ranks 0 and 0.2
    assert stack(found.decode(params)) == "a0 a1 a2 a4 a5"


@pytest.mark.parametrize(("removed", "idle"), [(0, True), (2, False), (4, True)])
def test_ranks_idle_where_none_or_all_go(removed: int, idle: bool, genome: Make) -> None:
    found = genome("{form: prune, models: [a], count: {low: 0, high: 4}}", layers=6)
    params = changed(found, path__removed=removed)
    assert found.idle(params) == ({f"path/keep/L{layer}" for layer in range(1, 5)} if idle else set())
    again = {name: 0.1 for name in params if "keep" in name}
    assert (found.decode({**params, **again, "path/keep/L4": 0.9}).key == found.decode(params).key) is idle


def test_without_influence_the_genes_rank_and_upper_layers_go_first(genome: Make) -> None:
    found = genome("{form: prune, models: [a], count: 2}", layers=6)
    assert stack(found.decode(found.start)) == "a0 a1 a2 a5"
    assert stack(found.decode(changed(found, path__keep__L1=0.4))) == "a0 a2 a3 a5"


def test_ends_may_go_where_they_are_not_pinned(genome: Make) -> None:
    found = genome("{form: prune, models: [a], count: 1, pinned: false}")
    assert stack(found.decode(found.start)) == "a0 a1 a2"


def test_which_model_is_a_gene_with_its_own_influence_and_ends(genome: Make) -> None:
    found = genome("{form: prune, models: [a, b], count: 1}", layers=6, influence=INFLUENCE)
    recipe = found.decode(changed(found, path__of="b"))
    assert stack(recipe) == "b0 b2 b3 b4 b5"
    assert (recipe.embed_from, recipe.head_from) == ("b", "b")


@pytest.mark.parametrize(("times", "expected"), [(2, "a0 a1 a2 a2 a3 a4 a5"), (3, "a0 a1 a2 a2 a2 a3 a4 a5")])
def test_a_layer_of_little_influence_is_repeated_in_place(times: int, expected: str, genome: Make) -> None:
    found = genome(f"{{form: repeat, models: [a], times: {times}}}", layers=6, influence=INFLUENCE)
    assert found.genes[0].name == "path/repeated"
    assert stack(found.decode(changed(found, path__repeated=1))) == expected


def test_a_merge_has_the_influence_of_its_base(genome: Make) -> None:
    found = genome(
        "{form: prune, models: [merged], count: 1}", "{base: b, layers: 1}", layers=6, influence=INFLUENCE
    )
    assert stack(found.decode(found.start)) == " ".join(f"merged{layer}" for layer in (0, 2, 3, 4, 5))


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{form: prune, count: 3}", "up to 3, and a model of 4 layers has 2 besides its first"),
        ("{form: prune, count: {low: 0, high: 4}, pinned: false}", "4 layers has 3 if one"),
    ],
)  # fmt: skip
def test_more_layers_than_there_are_cannot_go(path: str, message: str, genome: Make) -> None:
    with pytest.raises(SpaceError, match=message):
        _ = genome(path).genes


def test_layers_cannot_be_repeated_beyond_the_longest_path(genome: Make) -> None:
    longest = genome("{form: repeat, count: 2, times: 511}")
    assert len(stack(longest.decode(longest.start)).split()) == 1024
    with pytest.raises(SpaceError, match="stacks of up to 1026 layers, and the longest path has 1024"):
        _ = genome("{form: repeat, count: {low: 0, high: 2}, times: 512}").genes
