"""From a space and a number of layers to genes, and from their values to a recipe."""

from collections.abc import Mapping
from dataclasses import replace

import pytest

from evomerge import plugins
from evomerge.errors import SpaceError
from evomerge.parameters import Parameter, declared
from evomerge.recipe import MODULES, ModelRef
from evomerge.recipe.merge import IN_LAYERS
from evomerge.space import GeneSpec, Genome, parse_space
from evomerge.types import Value

LAYERS = 6


def genome(merge: str, *, layers: int = LAYERS, more: str = "") -> Genome:
    text = f"sources: {{base: b, math: m, lang: l}}\nmerge: {merge}\nobjectives: [{{task: t}}]\n{more}"
    models = {name: ModelRef(source=name[0]) for name in ("base", "math", "lang")}
    return Genome(space=parse_space(text), layers=layers, models=models)


def by_name(found: Genome) -> Mapping[str, GeneSpec]:
    return {gene.name: gene for gene in found.genes}


def middle(found: Genome) -> dict[str, Value]:
    """A value for every gene, each number different from every other."""
    params: dict[str, Value] = {}
    for i, gene in enumerate(found.genes):
        share = (i + 1) / (len(found.genes) + 1)
        params[gene.name] = gene.choices[-1] if gene.choices else gene.low + share * (gene.high - gene.low)
    return params


def test_genes_are_named_after_parameter_source_and_place() -> None:
    names = [gene.name for gene in genome("{base: base, layers: 2}").genes]
    assert names == [
        "weight/math/L0-2", "weight/lang/L0-2", "weight/math/L3-5", "weight/lang/L3-5",
        "weight/math/embed", "weight/lang/embed", "weight/math/head", "weight/lang/head",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("layers", "of", "labels"),
    [
        ("1", 6, ["L0-5"]),
        ("4", 6, ["L0", "L1-2", "L3", "L4-5"]),
        ("null", 8, ["L0-1", "L2-3", "L4-5", "L6-7"]),
        ("null", 3, ["L0", "L1", "L2"]),
        ("3", 7, ["L0-1", "L2-3", "L4-6"]),
        ("each", 3, ["L0", "L1", "L2"]),
        ("[[0, 3], [4, 5]]", 6, ["L0-3", "L4-5"]),
    ],
)
def test_layers_are_cut_into_runs(layers: str, of: int, labels: list[str]) -> None:
    found = genome(f"{{base: base, sources: [math], layers: {layers}}}", layers=of)
    assert [gene.name for gene in found.genes][:-2] == [f"weight/math/{label}" for label in labels]


@pytest.mark.parametrize(
    "layers", ["[[0, 2], [4, 5]]", "[[0, 3], [3, 5]]", "[[0, 4]]", "[[0, 6]]", "[[3, 5], [0, 2]]"]
)
def test_runs_that_do_not_tile_the_model_are_refused(layers: str) -> None:
    with pytest.raises(SpaceError, match=r"^runs of layers must cover layers 0 to 5 in order without gap"):
        _ = genome(f"{{base: base, layers: {layers}}}").genes


def test_more_runs_than_layers_are_refused() -> None:
    with pytest.raises(SpaceError, match=r"^7 runs of layers are asked for, but there are 6 layers$"):
        _ = genome("{base: base, layers: 7}").genes


def test_module_groups_have_genes_of_their_own() -> None:
    found = genome("{base: base, sources: [math], layers: 1, modules: [attn, [mlp, rest], [embed, head]]}")
    assert [gene.name for gene in found.genes] == [
        "weight/math/L0-5/attn", "weight/math/L0-5/mlp+rest", "weight/math/embed+head",
    ]  # fmt: skip


def test_ranges_are_the_methods_unless_the_space_says_otherwise() -> None:
    declared = by_name(genome("{base: base, method: ties, layers: 1}"))
    assert (declared["weight/math/head"].low, declared["weight/math/head"].high) == (0.0, 1.5)
    assert (declared["density/math/head"].low, declared["density/math/head"].high) == (0.1, 1.0)
    own = by_name(
        genome("{base: base, method: ties, layers: 1, genes: {density: {low: 0.01, high: 0.5, log: true}}}")
    )
    gene = own["density/lang/L0-5"]
    assert (gene.low, gene.high, gene.log) == (0.01, 0.5, True)
    assert not own["weight/lang/L0-5"].log


def test_methods_share_the_genes_of_one_name_with_the_widest_range() -> None:
    found = by_name(genome("{base: base, method: [ties, dare_linear], layers: 1}"))
    assert found["method"].choices == ("ties", "dare_linear")
    weight, density = found["weight/math/L0-5"], found["density/math/L0-5"]
    assert (weight.low, weight.high) == (-0.5, 1.5)
    assert (density.low, density.high) == (0.05, 1.0)
    assert sum(name.startswith("density/math") for name in found) == 3  # layers, embed, head


def test_a_parameter_searched_only_on_request_is_no_gene_until_then() -> None:
    assert not any("lambda" in name for name in by_name(genome("{base: base}")))
    asked = by_name(genome("{base: base, layers: 1, genes: {lambda: {low: 0.5, high: 2}}}"))
    assert [name for name in asked if name.startswith("lambda")] == [
        "lambda/L0-5",
        "lambda/embed",
        "lambda/head",
    ]


def test_choices_are_genes_with_options() -> None:
    found = by_name(genome("{base: base, layers: 1, genes: {normalize: [true, false], weight: [0, 0.5]}}"))
    assert found["normalize/head"].choices == (True, False)
    assert found["weight/math/head"].choices == (0, 0.5)


def test_a_search_starts_from_the_defaults_or_the_closest_there_is() -> None:
    genes = "{weight: {low: 0.1, high: 0.4}, lambda: [3, 2], normalize: [true, false]}"
    found = by_name(genome(f"{{base: base, layers: 1, method: [task_arithmetic, ties], genes: {genes}}}"))
    assert found["weight/math/head"].start == 0.4  # the default is 1
    assert found["lambda/head"].start == 3  # the default is not among them
    assert found["normalize/head"].start is False  # the first method's default
    assert found["method"].start == "task_arithmetic"


@pytest.mark.parametrize("layers", ["1", "4", "each", "[[0, 0], [1, 5]]"])
@pytest.mark.parametrize("modules", ["[[attn, mlp, rest], embed, head]", "[attn, mlp, rest, [embed, head]]"])
def test_every_place_has_exactly_one_group(layers: str, modules: str) -> None:
    found = genome(f"{{base: base, layers: {layers}, modules: {modules}}}")
    groups = found.decode(middle(found)).merge.groups
    places: list[tuple[int | None, str]] = [
        (layer, module) for layer in range(LAYERS) for module in IN_LAYERS
    ]
    places += [(None, module) for module in MODULES if module not in IN_LAYERS]
    for layer, module in places:
        assert sum(group.covers(layer, module) for group in groups) == 1, (layer, module)


def test_a_recipe_carries_each_value_to_its_place() -> None:
    found = genome("{base: base, layers: 2, method: ties, modules: [attn, [mlp, rest], embed, head]}")
    params = middle(found)
    merge = found.decode(params).merge
    assert (merge.method, merge.base, merge.sources) == ("ties", "base", ("math", "lang"))
    for layer, module, place in (
        (0, "attn", "L0-2/attn"), (2, "rest", "L0-2/mlp+rest"), (3, "mlp", "L3-5/mlp+rest"),
        (None, "embed", "embed"), (None, "head", "head"),
    ):  # fmt: skip
        settings = merge.settings("w", layer, module, LAYERS)
        for parameter in ("weight", "density"):
            assert settings[parameter] == {
                source: params[f"{parameter}/{source}/{place}"] for source in ("math", "lang")
            }


def test_fixed_values_are_in_every_recipe_and_no_genes() -> None:
    found = genome("{base: base, method: ties, genes: {density: 0.3, normalize: false, scope: model}}")
    assert {name.partition("/")[0] for name in by_name(found)} == {"weight"}
    settings = found.decode(middle(found)).merge.settings("w", 0, "attn", LAYERS)
    assert (settings["density"], settings["normalize"], settings["scope"]) == (0.3, False, "model")


def test_a_recipe_holds_only_what_its_method_knows() -> None:
    found = genome("{base: base, method: [linear, ties], layers: 1, genes: {scope: tensor}}")
    linear = found.decode(middle(found) | {"method": "linear"})
    ties = found.decode(middle(found) | {"method": "ties"})
    assert linear.merge.base is None
    assert set(linear.models) == {"math", "lang"}
    assert set(linear.merge.settings("w", 0, "attn", LAYERS)) == {"weight"}
    assert ties.merge.base == "base"
    assert set(ties.merge.settings("w", 0, "attn", LAYERS)) == {"weight", "density", "scope"}


def test_idle_genes_do_not_change_the_recipe() -> None:
    found = genome("{base: base, method: [task_arithmetic, ties], layers: 1}")
    params = middle(found) | {"method": "task_arithmetic"}
    assert found.decode(params).key == found.decode(params | {"density/math/head": 0.11}).key
    assert found.decode(params).key != found.decode(params | {"weight/math/head": 0.11}).key


def test_a_recipe_keeps_dtype_and_seed_of_the_space() -> None:
    recipe = genome("{base: base, sources: [math]}", more="dtype: bfloat16\nseed: 9\n").recipe(
        "linear", params={}
    )
    assert (recipe.dtype, recipe.seed, set(recipe.models)) == ("bfloat16", 9, {"math"})


def test_fixing_everything_leaves_no_genes() -> None:
    found = genome("{base: base, genes: {weight: 1}}")
    assert found.genes == ()
    assert found.decode({}).merge.settings("w", 3, "mlp", LAYERS) == {"weight": 1}


def test_a_parameter_of_the_whole_model_is_one_gene_per_source(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {
        name: replace(parameter, spec=replace(parameter.spec, whole=True)) if name == "density" else parameter
        for name, parameter in declared(plugins.load("methods", "ties")).items()
    }
    monkeypatch.setattr("evomerge.space.merge_genes.declared", lambda method: whole)
    found = genome("{base: base, method: ties, layers: 2, genes: {weight: 1.0}}")
    assert [gene.name for gene in found.genes] == ["density/math", "density/lang"]
    merge = found.decode({"density/math": 0.25, "density/lang": 0.5}).merge
    assert merge.groups == ()
    assert merge.params == {"weight": 1.0, "density": {"math": 0.25, "lang": 0.5}}


def test_anchors_are_genes_that_the_recipe_interpolates() -> None:
    found = genome(
        "{base: base, sources: [math], layers: {anchors: 3}, modules: [attn, [mlp, rest], embed, head]}"
    )
    names = [gene.name for gene in found.genes]
    inside = [f"weight/math/A{anchor}/{modules}" for modules in ("attn", "mlp+rest") for anchor in range(3)]
    assert names == [*inside, "weight/math/embed", "weight/math/head"]
    params = dict.fromkeys(names, 0.0) | {
        "weight/math/A0/attn": 0.0,
        "weight/math/A1/attn": 1.0,
        "weight/math/head": 0.5,
    }
    merge = found.decode(params).merge
    weights = [merge.settings("w", layer, "attn", LAYERS)["weight"] for layer in range(LAYERS)]
    assert [each["math"] for each in weights if isinstance(each, Mapping)] == pytest.approx(
        [0.0, 0.4, 0.8, 0.8, 0.4, 0.0]
    )
    assert merge.settings("w", 2, "mlp", LAYERS)["weight"] == {"math": 0.0}
    assert merge.settings("w", None, "head", LAYERS)["weight"] == {"math": 0.5}


def test_a_shared_parameter_has_anchors_too() -> None:
    found = genome("{base: base, method: slerp, sources: [math], layers: {anchors: 2}}")
    assert [gene.name for gene in found.genes] == ["t/A0", "t/A1", "t/embed", "t/head"]
    merge = found.decode({"t/A0": 0.0, "t/A1": 1.0, "t/embed": 0.25, "t/head": 0.75}).merge
    assert [merge.settings("w", layer, "mlp", LAYERS)["t"] for layer in (0, 5)] == [0.0, 1.0]


def test_a_recipe_has_the_model_under_a_base_or_template_that_is_an_adapter() -> None:
    text = (
        "sources: {whole: w, base: {source: b, adapts: whole}, math: m}\n"
        "merge: {base: base, sources: [math]}\nobjectives: [{task: t}]\n"
    )
    adapter = ModelRef(source="b", adapts="whole")
    models = {"whole": ModelRef(source="w"), "base": adapter, "math": ModelRef(source="m")}
    found = Genome(space=parse_space(text), layers=LAYERS, models=models)
    assert found.decode(middle(found)).used == ("base", "math", "whole")


def test_a_parameter_is_of_the_whole_model_if_one_of_the_methods_has_it_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def other(method: type[object]) -> Mapping[str, Parameter]:
        if method is not plugins.load("methods", "ties"):
            return declared(method)
        return {
            name: replace(each, spec=replace(each.spec, whole=name == "density"))
            for name, each in declared(method).items()
        }

    monkeypatch.setattr("evomerge.space.merge_genes.declared", other)
    found = genome("{base: base, method: [ties, della], layers: 1, genes: {weight: 1.0}}")
    params = middle(found)
    for method in ("ties", "della"):
        settings = found.decode({**params, "method": method}).merge.params["density"]
        assert settings == {"math": params["density/math"], "lang": params["density/lang"]}


def test_a_search_starts_from_the_defaults_of_the_semantics_it_has() -> None:
    space = "{base: base, method: breadcrumbs, layers: 1, compat: official}"
    assert by_name(genome(space))["density/math/head"].start == 0.15
