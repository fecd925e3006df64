"""The models every search is compared with, and where in the space they lie."""

import pytest

from evomerge.recipe import ModelRef
from evomerge.space import Genome, parse_space
from evomerge.space.baselines import (
    AVERAGE,
    BASE,
    TASK_ARITHMETIC,
    Baseline,
    baseline,
    baselines,
    greedy_soup,
    parent,
)

LABELS = [BASE, parent("math"), parent("lang"), AVERAGE, TASK_ARITHMETIC]
WEIGHTS = {
    BASE: {"math": 0.0, "lang": 0.0},
    parent("math"): {"math": 1.0, "lang": 0.0},
    parent("lang"): {"math": 0.0, "lang": 1.0},
    AVERAGE: {"math": 0.5, "lang": 0.5},
    TASK_ARITHMETIC: {"math": 1.0, "lang": 1.0},
}


def genome(merge: str, more: str = "") -> Genome:
    text = f"sources: {{base: b, math: m, lang: l}}\nmerge: {merge}\nobjectives: [{{task: t}}]\n{more}"
    models = {name: ModelRef(source=name[0]) for name in ("base", "math", "lang")}
    return Genome(space=parse_space(text), layers=4, models=models)


def by_label(merge: str) -> dict[str, Baseline]:
    return {each.label: each for each in baselines(genome(merge))}


def points(merge: str) -> set[str]:
    """The labels of the baselines that are points of the space."""
    return {label for label, each in by_label(merge).items() if each.params is not None}


def test_base_parents_average_and_task_arithmetic_come_in_this_order() -> None:
    assert [each.label for each in baselines(genome("{base: base}"))] == LABELS


def test_all_have_the_form_of_the_template_that_is_asked_for() -> None:
    for label, each in by_label("{base: base, template: lang}").items():
        assert each.recipe.form_from == "lang", label
        assert "lang" in each.recipe.models


def test_a_model_that_only_the_path_takes_layers_from_is_a_parent_too() -> None:
    path = "path: {form: blocks, models: [merged, lang], embed: [merged, lang]}"
    found = {each.label: each for each in baselines(genome("{base: base, sources: [math]}", path))}
    assert list(found) == [BASE, parent("math"), parent("lang"), TASK_ARITHMETIC]
    assert found[parent("lang")].recipe.used == ("lang",)


def test_without_a_base_there_are_parents_and_average() -> None:
    labels = [each.label for each in baselines(genome("{method: linear}"))]
    assert labels == [parent("base"), parent("math"), parent("lang"), AVERAGE]


def test_one_source_has_no_average() -> None:
    assert list(by_label("{base: base, sources: [math]}")) == [BASE, parent("math"), TASK_ARITHMETIC]


def test_a_base_that_is_also_merged_is_one_baseline() -> None:
    labels = list(by_label("{base: base, sources: [base, math]}"))
    assert labels == [BASE, parent("math"), AVERAGE, TASK_ARITHMETIC]


def test_recipes_are_what_their_labels_say() -> None:
    recipes = {label: each.recipe for label, each in by_label("{base: base, method: ties}").items()}
    for label, model in ((BASE, "base"), (parent("math"), "math"), (parent("lang"), "lang")):
        merge = recipes[label].merge
        assert (merge.method, merge.sources, merge.params) == ("linear", (model,), {"weight": 1.0})
    average, summed = recipes[AVERAGE].merge, recipes[TASK_ARITHMETIC].merge
    assert (average.method, average.sources, average.base) == ("linear", ("math", "lang"), None)
    assert average.params == {"weight": 1.0, "normalize": True}
    assert (summed.method, summed.sources, summed.base) == ("task_arithmetic", ("math", "lang"), "base")
    assert summed.params == {"weight": 1.0}


def test_baselines_differ_from_one_another() -> None:
    assert len({each.recipe.key for each in by_label("{base: base}").values()}) == len(LABELS)


@pytest.mark.parametrize("method", ["task_arithmetic", "dare_linear", "[ties, dare_linear]"])
@pytest.mark.parametrize("label", LABELS)
def test_a_point_decodes_to_the_weights_of_its_baseline(method: str, label: str) -> None:
    space = genome(f"{{base: base, method: {method}, layers: 2}}")
    params = next(each.params for each in baselines(space) if each.label == label)
    assert params is not None
    assert set(params) == {gene.name for gene in space.genes}
    merge = space.decode(params).merge
    assert merge.method in ("task_arithmetic", "dare_linear")
    for layer, module in ((0, "attn"), (1, "mlp"), (3, "rest"), (None, "embed"), (None, "head")):
        settings = merge.settings("w", layer, module, 4)
        assert settings["weight"] == WEIGHTS[label]
        assert settings.get("density") in (None, {"math": 1.0, "lang": 1.0})


@pytest.mark.parametrize("method", ["ties", "dare_ties"])
def test_no_baseline_is_a_point_where_no_method_is_additive(method: str) -> None:
    assert points(f"{{base: base, method: {method}}}") == set()


@pytest.mark.parametrize(
    ("genes", "inside"),
    [
        ("{weight: {low: 0.1, high: 1}}", {AVERAGE, TASK_ARITHMETIC}),
        ("{weight: {low: 0, high: 0.9}}", {BASE, AVERAGE}),
        ("{weight: {low: 1, high: 2}}", {TASK_ARITHMETIC}),
        ("{weight: [0, 1]}", {BASE, parent("math"), parent("lang"), TASK_ARITHMETIC}),
        ("{weight: [0, 1], lambda: {low: 0.1, high: 0.9}}", set()),
        ("{weight: [0, 1], normalize: true}", set()),
        ("{lambda: 2}", set()),
        ("{lambda: 1, normalize: false}", set(LABELS)),
    ],
)
def test_only_what_the_ranges_allow_is_a_point(genes: str, inside: set[str]) -> None:
    assert points(f"{{base: base, genes: {genes}}}") == inside


@pytest.mark.parametrize("weight", ["1", "0.5", "0"])
def test_no_baseline_is_a_point_where_the_weights_are_fixed(weight: str) -> None:
    genes = f"{{weight: {weight}, lambda: {{low: 0.5, high: 2}}}}"
    assert points(f"{{base: base, genes: {genes}}}") == set()


def test_dropping_that_cannot_be_turned_off_leaves_no_point() -> None:
    space = "{base: base, method: dare_linear, genes: {density: {low: 0.1, high: 0.5}}}"
    assert points(space) == set()
    assert points(space.replace("high: 0.5", "high: 1.0")) == set(LABELS)


def test_the_additive_one_of_several_methods_is_chosen() -> None:
    found = by_label("{base: base, method: [ties, task_arithmetic]}")
    params = found[TASK_ARITHMETIC].params
    assert params is not None
    assert params["method"] == "task_arithmetic"


SOUP = "baselines: [greedy_soup]"


def soup_genome(merge: str, more: str = SOUP) -> Genome:
    text = f"sources: {{base: b, math: m, lang: l}}\nmerge: {merge}\nobjectives: [{{task: t}}]\n{more}\n"
    models = {name: ModelRef(source=name[0]) for name in ("base", "math", "lang")}
    return Genome(space=parse_space(text), layers=4, models=models)


def test_a_greedy_soup_goes_on_once_the_parents_and_the_average_are_scored() -> None:
    genome, scores = soup_genome("{method: linear}"), dict[str, float | None]()
    for label, score in ((parent("base"), 0.2), (parent("math"), 0.5), (parent("lang"), 0.4), (AVERAGE, 0.9)):
        assert greedy_soup(genome, scores) is None
        scores[label] = score
    step = greedy_soup(genome, scores)
    assert step is not None
    assert (step.label, step.soup) == ("soup of math, lang", None)
    recipe = baseline(genome, step.label).recipe
    assert (recipe.merge.method, recipe.merge.sources) == ("linear", ("math", "lang"))
    ended = greedy_soup(genome, scores | {step.label: 0.6})
    assert ended is not None
    assert ended.soup is not None
    assert ended.label == AVERAGE  # all three: a model that is scored already
    worse = greedy_soup(genome, scores | {step.label: 0.1})
    assert worse is not None
    assert worse.label == "soup of math, base"


def test_a_greedy_soup_is_made_only_where_it_is_asked_for_and_can_be_had() -> None:
    labels = [parent("base"), parent("math"), parent("lang"), AVERAGE]
    scores: dict[str, float | None] = dict.fromkeys(labels, 0.1)
    assert greedy_soup(soup_genome("{method: linear}", more=""), scores) is None
    assert greedy_soup(soup_genome("{method: linear}"), dict.fromkeys(scores, None)) is None


def test_a_soup_is_a_point_of_the_space_where_genes_can_say_it() -> None:
    found = baseline(soup_genome("{base: base}"), "soup of math, lang")
    assert found.params is not None
    assert {value for name, value in found.params.items() if name.startswith("weight/")} == {0.5}


@pytest.mark.parametrize("tokenizer", ["base", "union", "lang"])
def test_parents_keep_their_own_words_where_tokens_are_matched(tokenizer: str) -> None:
    found = {each.label: each for each in baselines(genome("{base: base}", f"tokenizer: {tokenizer}\n"))}
    alone, merged = LABELS[:3], LABELS[3:]
    assert {(found[label].recipe.tokenizer, found[label].params) for label in alone} == {(None, None)}
    assert {(found[label].recipe.tokenizer, found[label].recipe.form_from) for label in merged} == {
        (tokenizer, "base")
    }
    assert all(found[label].params for label in merged)


@pytest.mark.parametrize(("tokenizer", "form"), [("union", "base"), ("lang", "base"), ("other", "other")])
def test_a_soup_is_made_in_the_words_of_the_space(tokenizer: str, form: str) -> None:
    text = (
        "sources: {base: b, math: m, lang: l, other: o}\nmerge: {base: base}\nobjectives: [{task: t}]\n"
        f"tokenizer: {tokenizer}\nbaselines: [greedy_soup]\n"
    )
    models = {name: ModelRef(source=name) for name in ("base", "math", "lang", "other")}
    found = baseline(Genome(space=parse_space(text), layers=4, models=models), "soup of math, lang")
    assert (found.recipe.tokenizer, found.recipe.form_from, found.params) == (tokenizer, form, None)
