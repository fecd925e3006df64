"""Layer swaps as genes: widths or a curve, who is inside whom, and whose ends."""

from collections.abc import Callable

import pytest

from evomerge.errors import SpaceError
from evomerge.recipe import ModelRef, Recipe, layer_swap
from evomerge.space import Genome, parse_space
from tests.space.paths.conftest import changed

Make = Callable[..., Genome]


def shares(recipe: Recipe, language: str, layers: int) -> list[float]:
    """Return the language expert's share of each layer."""
    (merge,) = recipe.merges.values()
    weights = [merge.settings("", layer, "attn", layers)["weight"] for layer in range(layers)]
    return [each[language] for each in weights]  # type: ignore[index,misc]


def test_widths_roles_and_ends_are_genes(genome: Make) -> None:
    found = genome("{form: layer_swap, models: [a, b]}", layers=32)
    assert [(gene.name, gene.low, gene.high, gene.choices, gene.start) for gene in found.genes] == [
        ("path/roles", 0, 1, ("a inside b", "b inside a"), "a inside b"),
        ("path/bottom", 0, 10, None, 4),
        ("path/top", 0, 10, None, 2),
        ("path/transition", 0, 2, None, 1),
        ("path/ends", 0, 1, ("language", "task", "average"), "language"),
    ]


def test_the_genes_are_the_layer_swap_of_the_paper(genome: Make) -> None:
    found = genome("{form: layer_swap, task: a, language: b}", layers=12)
    params = changed(found, path__bottom=3, path__top=2, path__transition=1, path__ends="average")
    expected = layer_swap("a", "b", layers=12, bottom=3, top=2, transition=1, ends_from="average")
    assert list(found.decode(params).merges.values()) == [expected]


def test_roles_are_all_pairs_of_different_models(genome: Make) -> None:
    found = genome("{form: layer_swap, task: [a, b], language: [b, c]}")
    assert found.genes[0].choices == ("a inside b", "a inside c", "b inside c")
    recipe = found.decode(changed(found, path__roles="b inside c"))
    assert next(iter(recipe.merges.values())).sources == ("b", "c")
    assert set(recipe.models) == {"b", "c"}


def test_what_has_no_room_gives_way(genome: Make) -> None:
    found = genome("{form: layer_swap, task: a, language: b, bottom: {low: 0, high: 4}, top: 3}")
    narrow = found.decode(changed(found, path__bottom=1, path__transition=2))
    assert shares(narrow, "b", 4) == [1, 1, 1, 1]
    assert shares(found.decode(changed(found, path__bottom=4)), "b", 4) == [1, 1, 1, 1]
    six = genome("{form: layer_swap, task: a, language: b, bottom: 1, top: 1, transition: 2}", layers=5)
    assert shares(six.decode(six.start), "b", 5) == [1, 0.5, 0, 0.5, 1]


@pytest.mark.parametrize(("curve", "count"), [("each", 8), ("{anchors: 3}", 3)])
def test_a_curve_takes_the_place_of_the_widths(curve: str, count: int, genome: Make) -> None:
    found = genome(f"{{form: layer_swap, task: a, language: b, ends: task, curve: {curve}}}", layers=8)
    assert len(found.genes) == count
    assert found.start["path/language/" + ("L0" if curve == "each" else "A0")] == 1.0
    params = {gene.name: i / (count - 1) for i, gene in enumerate(found.genes)}
    assert shares(found.decode(params), "b", 8) == pytest.approx([i / 7 for i in range(8)])


def test_everything_fixed_leaves_no_genes(genome: Make) -> None:
    found = genome(
        "{form: layer_swap, task: a, language: b, bottom: 1, top: 1, transition: 0, ends: language}"
    )
    assert not found.genes
    assert shares(found.decode({}), "b", 4) == [1, 0, 0, 1]


def test_the_searched_merge_may_be_one_of_the_two(genome: Make) -> None:
    merge = "{base: c, sources: [a, b], method: ties, layers: 1}"
    found = genome("{form: layer_swap, task: merged, language: b, ends: language}", merge)
    recipe = found.decode(changed(found, path__bottom=1))
    assert recipe.merges["swapped"].sources == ("merged", "b")
    assert recipe.merges["merged"].method == "ties"
    assert {gene.name.partition("/")[0] for gene in found.genes} == {"weight", "density", "path"}


@pytest.mark.parametrize(
    "path", ["{form: layer_swap, task: a, language: a}", "{form: layer_swap, models: [a]}"]
)
def test_one_model_cannot_be_swapped_with_itself(path: str) -> None:
    text = f"sources: {{a: x, b: y}}\npath: {path}\nobjectives: [{{task: t}}]"
    with pytest.raises(SpaceError, match="`path` needs two models to swap layers of"):
        parse_space(text)


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        ("curve: each, bottom: 2", "`bottom` beside `curve`"),
        ("curve: {anchors: 2}, top: {low: 0, high: 1}, transition: 0", "`top`, `transition` beside `curve`"),
    ],
)
def test_widths_beside_a_curve_are_refused(keys: str, found: str) -> None:
    text = (
        f"sources: {{a: x, b: y}}\npath: {{form: layer_swap, task: a, language: b, {keys}}}\n"
        "objectives: [{task: t}]"
    )
    with pytest.raises(SpaceError, match=f"`path` must have widths or a `curve`, found {found}$"):
        parse_space(text)


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ("bottom: {low: 0, high: 5}", "`bottom` goes up to 5, and the models have 4 layers"),
        ("transition: 9", "`transition` goes up to 9, and the models have 4 layers"),
        (
            "bottom: {low: 2, high: 4}, top: 3",
            "`bottom` and `top` take at least 5 layers, and the models have",
        ),
    ],
)
def test_widths_beyond_the_models_are_refused(keys: str, said: str, genome: Make) -> None:
    with pytest.raises(SpaceError, match=said):
        _ = genome(f"{{form: layer_swap, task: a, language: b, {keys}}}").genes


@pytest.mark.parametrize(
    ("merge", "words", "form"),
    [
        ("{base: c}", "base", "c"), ("{base: c}", "c", "c"), ("{base: c}", "a", "a"),
        ("{base: c, template: b}", "base", "b"),
    ],
)  # fmt: skip
def test_a_swap_has_the_words_that_are_asked_for(merge: str, words: str, form: str) -> None:
    text = (
        f"sources: {{a: x, b: y, c: z}}\nmerge: {merge}\npath: {{form: layer_swap, task: a, language: b}}\n"
        f"objectives: [{{task: t}}]\ntokenizer: {words}"
    )
    models = {name: ModelRef(source=name) for name in "abc"}
    found = Genome(space=parse_space(text), layers=4, models=models)
    recipe = found.decode(found.start)
    assert recipe.form_from == form
    assert recipe.tokenizer == words
