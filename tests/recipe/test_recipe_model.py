"""What a recipe accepts, and when two recipes are one."""

from dataclasses import replace
from typing import Any

import pytest

from evomerge.errors import RecipeError
from evomerge.recipe import Group, Merge, ModelRef, Recipe, Slot

GROUP = Group(modules=("attn",), layers=(0, 1), params={"weight": {"a": 0.5, "b": 0.25}})
MERGE = Merge(
    method="ties",
    base="base",
    sources=("a", "b"),
    params={"density": 0.5, "normalize": True},
    groups=(GROUP, Group(modules=("mlp",), params={"weight": 0.3})),
)
MODELS = {name: ModelRef(source=f"org/{name}") for name in ("base", "a", "b")}


def recipe(merge: Merge = MERGE, *, name: str = "merged", **changed: Any) -> Recipe:
    return Recipe(**{"models": MODELS, "merges": {name: merge}, **changed})


def test_the_key_is_sixteen_hex_digits_and_does_not_change_between_versions() -> None:
    assert recipe().key == "ad3e455f070dcc6e"


def test_recipes_are_values_for_sets_and_tables() -> None:
    assert len({recipe(), recipe(), recipe(replace(MERGE, params={"density": 0.1}))}) == 2


def test_the_name_of_the_merge_does_not_matter() -> None:
    assert recipe(name="other").key == recipe().key


def test_the_templates_tokenizer_is_the_same_by_either_name() -> None:
    merge = replace(MERGE, base="a", sources=("b",))
    keys = [recipe(merge, tokenizer=name).key for name in ("base", "a", "b", "union")]
    assert keys[0] == keys[1]
    assert len(set(keys)) == 3


def test_unused_models_and_their_names_do_not_matter() -> None:
    for unused in ("c", "zzz"):
        assert recipe(models={**MODELS, unused: ModelRef(source="org/c")}).key == recipe().key


def test_the_order_of_tables_does_not_matter() -> None:
    turned = replace(
        MERGE,
        params=dict(reversed(list(MERGE.params.items()))),
        groups=(replace(GROUP, params={"weight": {"b": 0.25, "a": 0.5}}), MERGE.groups[1]),
    )
    assert recipe(turned, models=dict(reversed(MODELS.items()))).key == recipe().key


def test_whole_numbers_are_the_same_as_floats() -> None:
    one, other = (recipe(replace(MERGE, params={"density": value})) for value in (1, 1.0))
    assert one.key == other.key


def test_a_digest_stands_for_its_source() -> None:
    one, other = (
        recipe(models={**MODELS, "a": ModelRef(source=source, digest="blake2b:1")}) for source in ("x", "y")
    )
    assert one.key == other.key != recipe().key


@pytest.mark.parametrize(
    "merge",
    [
        replace(MERGE, method="dare_ties"),
        replace(MERGE, compat="mergekit"),
        replace(MERGE, sources=("b", "a")),
        replace(MERGE, sources=("a",)),
        replace(MERGE, base="a"),
        replace(MERGE, params={"density": 0.5000001, "normalize": True}),
        replace(MERGE, params={"density": 0.5, "normalize": False}),
        replace(MERGE, params={"density": 0.5, "normalize": 1}),
        replace(MERGE, params={"density": 0.5}),
        replace(MERGE, params={**MERGE.params, "lambda": 1.0}),
        replace(MERGE, groups=MERGE.groups[::-1]),
        replace(MERGE, groups=MERGE.groups[:1]),
        replace(MERGE, groups=(replace(GROUP, layers=(0, 2)), MERGE.groups[1])),
        replace(MERGE, groups=(replace(GROUP, layers=None), MERGE.groups[1])),
        replace(MERGE, groups=(replace(GROUP, modules=("mlp",)), MERGE.groups[1])),
        replace(MERGE, groups=(replace(GROUP, params={"weight": {"a": 0.25, "b": 0.5}}), MERGE.groups[1])),
    ],
)
def test_any_change_of_the_merge_changes_the_key(merge: Merge) -> None:
    assert recipe(merge).key != recipe().key


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"dtype": "bfloat16"},
        {"tokenizer": "base"},
        {"template": "a"},
        {"models": {**MODELS, "a": ModelRef(source="org/other")}},
        {"models": {**MODELS, "a": ModelRef(source="org/a", revision="main")}},
    ],
)
def test_any_change_around_the_merge_changes_the_key(changed: dict[str, Any]) -> None:
    assert recipe(**changed).key != recipe().key


def test_settings_are_those_of_the_first_covering_group_over_the_common_ones() -> None:
    assert MERGE.settings("w", 1, "attn", 4) == {**MERGE.params, "weight": {"a": 0.5, "b": 0.25}}
    assert MERGE.settings("w", 2, "attn", 4) == MERGE.params
    assert MERGE.settings("w", 2, "mlp", 4) == {**MERGE.params, "weight": 0.3}


@pytest.mark.parametrize(
    ("layer", "module", "covered"),
    [(0, "attn", True), (1, "attn", True), (2, "attn", False), (0, "mlp", False), (None, "embed", False)],
)
def test_a_group_covers_its_layers_with_both_ends(layer: int | None, module: str, covered: bool) -> None:
    assert GROUP.covers(layer, module) is covered


def test_layers_say_nothing_of_tensors_outside_the_layers() -> None:
    assert Group(modules=("embed",), layers=(3, 4), params={}).covers(None, "embed")


def test_the_template_is_the_base_or_the_first_source() -> None:
    assert recipe().form_from == "base"
    assert recipe(replace(MERGE, base=None)).form_from == "a"
    assert recipe(template="base").key == recipe().key


def test_another_template_is_used_like_the_models_that_are_merged() -> None:
    models = {**MODELS, "eyes": ModelRef(source="org/eyes")}
    asked = recipe(models=models, template="eyes")
    assert (asked.form_from, asked.used) == ("eyes", ("eyes", "base", "a", "b"))
    assert asked.key != recipe(models={**models, "eyes": ModelRef(source="x")}, template="eyes").key
    with pytest.raises(RecipeError, match=r"no model named `eye`\. Did you mean `eyes`"):
        recipe(models=models, template="eye")


def test_an_unknown_module_is_refused_with_a_suggestion() -> None:
    with pytest.raises(RecipeError, match=r"no module group named `attention`\. Did you mean `attn`"):
        Group(modules=("attention",), params={})


@pytest.mark.parametrize("layers", [(2, 1), (-1, 3)])
def test_layers_that_are_no_range_are_refused(layers: tuple[int, int]) -> None:
    with pytest.raises(RecipeError, match=r"layers are \[first, last\] counted from 0"):
        Group(modules=("attn",), layers=layers, params={})


@pytest.mark.parametrize("merge", [replace(MERGE, sources=("a", "bb")), replace(MERGE, base="bb")])
def test_an_unknown_model_is_refused(merge: Merge) -> None:
    with pytest.raises(RecipeError, match=r"no model named `bb`\. Did you mean `b`"):
        recipe(merge)


def test_a_merge_without_sources_is_refused() -> None:
    with pytest.raises(RecipeError, match="at least one source"):
        recipe(replace(MERGE, sources=()))


def test_a_source_twice_is_refused() -> None:
    """Parameters go by a source's name, so two of one name could not be told apart."""
    with pytest.raises(RecipeError, match="a merge names each source once, found a, b, a"):
        recipe(replace(MERGE, sources=("a", "b", "a")))


@pytest.mark.parametrize("count", [0, 2])
def test_exactly_one_merge_is_needed(count: int) -> None:
    with pytest.raises(RecipeError, match=f"exactly one merge that no other reads, found {count}"):
        recipe(merges={f"m{i}": MERGE for i in range(count)})


def test_statistics_are_part_of_the_key_only_where_there_are_some() -> None:
    ref = ModelRef(source="org/a", digest="blake2b:00")
    plain, placed, pinned, moved, other = (
        recipe(models={**MODELS, "a": each}).key
        for each in (
            ref,
            replace(ref, fisher="x"),
            replace(ref, fisher="x", fisher_digest="blake2b:11"),
            replace(ref, fisher="y", fisher_digest="blake2b:11"),
            replace(ref, gram="y", gram_digest="blake2b:11"),
        )
    )
    assert pinned == moved
    assert len({plain, placed, pinned, other}) == 4
    assert ref.informed_by("fisher").content == ref.content == "blake2b:00"
    both = replace(ref, fisher="x", gram="y", gram_digest="blake2b:11")
    assert both.informed_by("gram") == replace(ref, gram="y", gram_digest="blake2b:11")
    assert both.informed_by(None) == ref


def test_a_recipe_changed_in_part_has_the_form_it_then_has() -> None:
    other = replace(recipe(), merges={"merged": replace(MERGE, base=None)})
    assert other == recipe(replace(MERGE, base=None))
    assert recipe() == replace(recipe(), template="base")
    stacked = replace(recipe(), merges={}, path=(Slot(model="a", layer=0),))
    assert stacked.form_from == "a"
