"""A space with a path, over three models of four layers."""

from collections.abc import Callable, Mapping

import pytest

from evomerge.recipe import ModelRef, Recipe
from evomerge.space import Genome, parse_space
from evomerge.types import Value

LAYERS = 4


@pytest.fixture
def genome() -> Callable[..., Genome]:
    """Return the genome of a path's text, beside that of a merge."""

    def make(path: str, merge: str = "{}", *, layers: int = LAYERS, **rest: object) -> Genome:
        text = f"sources: {{a: x, b: y, c: z}}\nmerge: {merge}\npath: {path}\nobjectives: [{{task: t}}]\n"
        models = {name: ModelRef(source=name) for name in "abc"}
        return Genome(space=parse_space(text), layers=layers, models=models, **rest)  # type: ignore[arg-type]

    return make


def stack(recipe: Recipe) -> str:
    """Return a path as text, such as `a0 a1 b3`."""
    assert recipe.path is not None
    return " ".join(f"{slot.model}{slot.layer}" for slot in recipe.path)


def scales(recipe: Recipe) -> list[float]:
    """Return the scale of each slot."""
    assert recipe.path is not None
    return [slot.scale for slot in recipe.path]


def changed(genome: Genome, **values: Value) -> Mapping[str, Value]:
    """Return the starting point but for some genes, whose names have `__` for each `/`."""
    named = {name.replace("__", "/"): value for name, value in values.items()}
    unknown = named.keys() - genome.start.keys()
    assert not unknown, unknown
    return {**genome.start, **named}
