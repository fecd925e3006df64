"""What holds for every form of a path, whatever its keys, its models and its genes."""

import json
import random
from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Any

import hypothesis.strategies as st
import yaml
from hypothesis import HealthCheck, assume, given, settings

from evomerge.errors import SpaceError
from evomerge.recipe import ModelRef, Recipe, from_yaml, to_yaml
from evomerge.space import Genome, parse_space
from evomerge.types import Value

NAMES = ("a", "b", "c")
KNOWN = (*NAMES, "merged")
MERGES = ({"base": "c", "method": ["ties", "dare_linear"]}, {"method": "linear", "layers": "each"})

some = st.lists(st.sampled_from(KNOWN), min_size=1, max_size=3, unique=True)
scales = st.sampled_from(
    [0.7, {"low": 0.5, "high": 1.5}, {"low": 0.2, "high": 0.9}, {"low": 1.1, "high": 3.0, "log": True}]
)
flags = st.booleans()


def whole(most: int) -> st.SearchStrategy[Any]:
    """Draw a number, or a range of them."""
    pairs = st.lists(st.integers(0, most), min_size=2, max_size=2).map(sorted)
    return st.integers(0, most) | pairs.map(lambda pair: {"low": pair[0], "high": pair[1]})


def runs(layers: int) -> st.SearchStrategy[Any]:
    def listed(cuts: list[int]) -> list[list[int]]:
        edges = [0, *cuts, layers]
        return [[first, stop - 1] for first, stop in pairwise(edges)]

    inside = st.sampled_from(range(1, layers)) if layers > 1 else st.nothing()
    cut = st.lists(inside, max_size=3, unique=True).map(sorted).map(listed) if layers > 1 else st.nothing()
    return st.just("each") | st.integers(1, layers) | cut


@st.composite
def paths(draw: st.DrawFn, layers: int) -> dict[str, Any]:
    """Draw the `path` of a space, each of its keys or not."""
    stack = {
        "embed": some,
        "head": some,
        "scale": scales,
        "pinned": flags,
        "most": st.integers(1, 2 * layers),
    }
    ranked = {"count": whole(layers), "pinned": flags}
    forms: Mapping[str, Mapping[str, st.SearchStrategy[Any]]] = {
        "slots": {**stack, "repeats": st.integers(1, 3)},
        "blocks": {**stack, "times": st.sampled_from([1, 3, 1024]), "layers": runs(layers)},
        "layer_swap": {
            "task": some, "language": some, "bottom": whole(layers), "top": whole(layers),
            "transition": whole(3), "curve": st.sampled_from(["each", {"anchors": 2}, {"anchors": 5}]),
            "ends": st.sampled_from(["average", ["language", "task"]]),
        },
        "prune": ranked,
        "repeat": {**ranked, "times": st.sampled_from([2, 3, 30])},
    }  # fmt: skip
    form = draw(st.sampled_from(sorted(forms)))
    keys = {name: draw(each) for name, each in forms[form].items() if draw(flags)}
    return {"form": form, "models": draw(some), **keys}


@st.composite
def genomes(draw: st.DrawFn) -> Genome:
    """Draw a space that evomerge accepts, and the depth of its models."""
    layers = draw(st.sampled_from([1, 2, 3, 4, 7, 12]))
    content = {
        "sources": {name: f"/{name}" for name in NAMES},
        "merge": draw(st.sampled_from(MERGES)),
        "path": draw(paths(layers)),
        "objectives": [{"task": "t"}],
    }
    models = {name: ModelRef(source=f"/{name}") for name in NAMES}
    influence = {name: tuple(draw(st.lists(st.floats(0, 2), min_size=layers, max_size=layers)))
                 for name in NAMES if draw(flags)}  # fmt: skip
    try:
        space = parse_space(yaml.safe_dump(content))
        genome = Genome(space=space, layers=layers, models=models, influence=influence)
        assume(genome.genes)
    except SpaceError:
        assume(False)
    return genome


def drawn(genome: Genome, rng: random.Random) -> dict[str, Value]:
    """Return a point of the space: corners often, as samplers do."""
    return {gene.name: gene.at(rng.choice([0.0, 1.0, rng.random()])) for gene in genome.genes}


def held(check: Callable[[Genome, random.Random], None]) -> None:
    """Hold random spaces to a check."""

    @settings(
        max_examples=50, deadline=None, database=None, derandomize=True,
        suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow],
    )  # fmt: skip
    @given(genomes(), st.integers(0, 2**32))
    def run(genome: Genome, seed: int) -> None:
        check(genome, random.Random(seed))

    run()


def test_every_point_is_a_recipe_that_fits() -> None:
    def check(genome: Genome, rng: random.Random) -> None:
        recipe = genome.decode(drawn(genome, rng))
        asked: Any = genome.space.path
        path = recipe.path
        if path is None:
            assert asked.form == "layer_swap"
            return
        assert all(0 <= slot.layer < genome.layers for slot in path)
        if asked.form in ("slots", "blocks"):
            assert 1 <= len(path) <= (asked.most or 2 * genome.layers)
        if asked.pinned:
            assert (path[0].layer, path[-1].layer) == (0, genome.layers - 1)

    held(check)


def test_recipes_outlive_text() -> None:
    def check(genome: Genome, rng: random.Random) -> None:
        params = drawn(genome, rng)
        recipe = genome.decode(params)
        assert from_yaml(to_yaml(recipe)).key == recipe.key
        stored: Mapping[str, Value] = json.loads(json.dumps(params))
        assert all(type(stored[gene.name]) is int for gene in genome.genes if gene.whole)
        own = genome.space.model_dump(mode="json", exclude_none=True)
        again = Genome(
            space=type(genome.space).model_validate(json.loads(json.dumps(own))),
            layers=genome.layers, models=genome.models, influence=genome.influence,
        )  # fmt: skip
        assert again.genes == genome.genes
        assert again.decode(stored).key == recipe.key

    held(check)


def test_nothing_depends_on_idle_genes() -> None:
    idle = 0

    def check(genome: Genome, rng: random.Random) -> None:
        nonlocal idle
        params, other = drawn(genome, rng), drawn(genome, rng)
        found = genome.idle(params)
        idle += len(found)
        changed = {name: other[name] if name in found else value for name, value in params.items()}
        assert genome.decode(changed).key == genome.decode(params).key

    held(check)
    assert idle > 100


def test_a_stack_begins_as_all_of_the_first_model() -> None:
    def check(genome: Genome, rng: random.Random) -> None:
        asked: Any = genome.space.path
        recipe: Recipe = genome.decode(genome.start)
        count = getattr(asked, "count", None)
        least = getattr(count, "low", count) or 0
        if asked.form == "layer_swap" or least or (getattr(asked, "most", None) or 99) < genome.layers:
            return
        first = genome.space.path_models[0]
        assert recipe.path is not None
        assert [(slot.model, slot.layer) for slot in recipe.path] == [
            (first, layer) for layer in range(genome.layers)
        ]

    held(check)
