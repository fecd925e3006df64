"""mergekit's recipes as ours: names, bases, tokenizers, and refusals by key and line."""

from __future__ import annotations

import re

import pytest

from evomerge.errors import ConversionError, SpaceError
from evomerge.mergekit.reading import from_mergekit
from evomerge.recipe import Ends, Filtered, Group, Merge, ModelRef, Recipe

SLICED = """\
merge_method: linear
slices:
  - sources:
      - {model: o/a, layer_range: [0, 4], parameters: {weight: 0.2}}
      - {model: o/b, layer_range: [0, 4], parameters: {weight: 0.8}}
  - sources:
      - {model: o/a, layer_range: [4, 6], parameters: {weight: [0, 1]}}
      - {model: o/b, layer_range: [4, 6], parameters: {weight: 0.5}}
"""


def read(text: str) -> Recipe:
    return from_mergekit(text)[0]


def test_slices_of_all_layers_become_groups() -> None:
    assert read(SLICED).merge == Merge(
        method="linear",
        sources=("a", "b"),
        groups=(
            Group(layers=(0, 3), modules=("attn", "mlp", "rest"), params={"weight": {"a": 0.2, "b": 0.8}}),
            Group(layers=(4, 5), modules=("attn", "mlp", "rest"), params={"weight": {"a": (0, 1), "b": 0.5}}),
            Group(modules=("embed",), params={"weight": {"a": 0.2, "b": 0.8}}),
            Group(modules=("head",), params={"weight": {"a": 1, "b": 0.5}}),
        ),
    )


def test_slices_of_a_part_of_deeper_models_become_a_path() -> None:
    cut, notes = from_mergekit(SLICED, layers_of=lambda model: 12)
    assert [slot.layer for slot in cut.path or ()] == list(range(6))
    assert not notes
    whole, notes = from_mergekit(SLICED, layers_of=lambda model: 6)
    assert whole.path is None
    assert not notes
    assert "not looked at" in from_mergekit(SLICED)[1][0]


def test_models_have_short_names_that_tell_them_apart() -> None:
    text = """\
merge_method: task_arithmetic
base_model: meta/llama
models:
  - {model: you/llama, parameters: {weight: 1}}
  - {model: ./mine/llama, parameters: {weight: 1}}
  - {model: meta/llama+some/lora@v2, parameters: {weight: 1}}
"""
    assert read(text).models == {
        "llama": ModelRef(source="meta/llama"),
        "you-llama": ModelRef(source="you/llama"),
        "mine-llama": ModelRef(source="./mine/llama"),
        "lora": ModelRef(source="some/lora", revision="v2", adapts="llama"),
    }


def test_scales_of_all_tensors_reach_the_ends() -> None:
    text = """\
merge_method: passthrough
slices: [{sources: [{model: o/a, layer_range: [0, 2]}]}]
parameters: {scale: [{filter: o_proj, value: 0.5}, {value: 0.75}]}
"""
    recipe = read(text)
    assert (recipe.path or ())[0].weights == (("o_proj", 0.5), ("*", 0.75))
    assert recipe.ends == Ends(weights=(("*", 0.75),))


def test_filters_leave_the_rest_to_mergekits_default() -> None:
    text = """\
merge_method: ties
base_model: o/base
models: [{model: o/a, parameters: {weight: 1, density: {filter: mlp, value: 0.3}}}]
"""
    assert read(text).merge.params["density"] == (Filtered(filter="mlp", value=0.3), Filtered(value=1.0))


def test_what_changes_nothing_is_noted() -> None:
    text = """\
merge_method: slerp
base_model: o/a
models:
  - {model: o/a, parameters: {weight: 0.5}}
  - {model: o/b, layer_range: [0, 32], parameters: {t: 0.9, weight: 0.5}}
parameters: {t: 0.5, int8_mask: true, density: 0.5, embed_slerp: false}
"""
    recipe, notes = from_mergekit(text)
    assert recipe.merge == Merge(method="slerp", base="a", sources=("b",))
    assert [note.split("`")[1] for note in notes] == [
        "models[1].layer_range",
        "models[0].parameters",
        "parameters.int8_mask",
        "parameters.density",
        "parameters.embed_slerp",
        "models[1].parameters.t",
        "models[1].parameters.weight",
    ]


@pytest.mark.parametrize(
    ("said", "tokenizer"),
    [
        ("tokenizer_source: base", "base"), ("tokenizer: {source: union}", "union"),
        ("tokenizer: {}", "union"),
        ("tokenizer_source: o/b", "b"), ("tokenizer_source: model:o/a", "a"), ("tokenizer_source:", None),
    ],
)  # fmt: skip
def test_tokenizers(said: str, tokenizer: str | None) -> None:
    text = "merge_method: slerp\nbase_model: o/a\nmodels: [{model: o/b}]\nparameters: {t: 0.3}\n"
    assert read(text + said).tokenizer == tokenizer


LINEAR = """\
merge_method: linear
models:
- {model: o/a, parameters: {weight: 1}}
- {model: o/b, parameters: {weight: 1}}
"""
# fmt: off
REFUSED = [
    (LINEAR + "chat_template: chatml", "5: `chat_template` is not converted"),
    (LINEAR + "tokenizer: {source: union, tokens: {<x>: {source: o/a}}}",
     "`tokenizer.tokens` is not converted"),
    (LINEAR + "tokenizer: {pad_to_multiple_of: 64}", "`tokenizer.pad_to_multiple_of` is not converted"),
    (LINEAR + "tokenizer_source: o/c", "`tokenizer_source` must be one of the merged models"),
    (LINEAR + "tokenizer_source: base\ntokenizer: {}", "`tokenizer_source` stands beside `tokenizer`"),
    (LINEAR + "dtype: int4", "`dtype` must be float32, bfloat16 or float16, found `int4`"),
    (LINEAR + "merge_metod: x", "`merge_metod` is unknown"),
    (LINEAR + "base_model: o/c", "`base_model` is merged by mergekit's `linear` as one more model"),
    (LINEAR + "modules: {}", "`modules` is not converted"),
    (LINEAR + "parameters: {wieght: 1}", "Did you mean `weight`?"),
    (LINEAR + "parameters: {rescale: true}", "`parameters.rescale` is not converted"),
    (LINEAR + "parameters: {normalize: [true, false]}",
     "`parameters.normalize` has switches"),
    (LINEAR.replace("linear", "lineer"),
     "1: `merge_method` is not converted: no method of both named `lineer`"),
    (LINEAR.replace("linear", "slerp"), "`base_model` is missing: `slerp` needs a base"),
    (LINEAR.replace("o/b", "o/a"), "4: `models[1].model` names o/a twice"),
    (LINEAR.replace("{weight: 1}", "{}"), "3: `models[0].parameters.weight` is missing"),
    (LINEAR.replace("{weight: 1}", "{weight: {}}"), "`models[0].parameters.weight.value` must be a value"),
    ("merge_method: linear", "`slices` is missing"),
    (
        "merge_method: slerp\nbase_model: o/a\nmodels: [o/b, o/c]\nparameters: {t: 0.5}",
        "`models` `slerp` takes exactly 1 model(s) besides the base, found 2",
    ),
    (
        "merge_method: slerp\nbase_model: o/a\nmodels: [o/b]\nparameters: {t: [{filter: mlp, value: 1}]}",
        "`parameters.t` leaves tensors that no filter matches without a value",
    ),
    (SLICED.replace("o/b, layer_range: [4, 6]", "o/b, layer_range: [5, 7]"),
     "merge layers of different places"),
    (SLICED.replace("[4, 6]", "[6, 4]"), "`slices[1].sources[0].layer_range` must be"),
    (SLICED.replace("linear", "passthrough"),
     "`slices[0].sources` must be one model for `passthrough`, found 2"),
    ("merge_method: passthrough\nmodels: [o/a, o/b]", "`models` have no layer ranges"),
    (f"name: x\n{LINEAR}---\nname: y\n{LINEAR}",
     "must make one model that no other document reads, found `x`, `y`"),
    (
        f"name: x\n{LINEAR}tokenizer_source: union\n---\n{LINEAR.replace('o/b', 'x')}",
        "`tokenizer_source` belongs to the document that makes the result",
    ),
    (
        "name: x\nmerge_method: passthrough\nslices: [{sources: [{model: o/a, layer_range: [0, 1]}]}]\n"
        f"---\n{LINEAR.replace('o/b', 'x')}",
        "`name` is a stack of layers, `x`, which others cannot merge",
    ),
]
# fmt: on


@pytest.mark.parametrize(("text", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_cannot_be_converted_is_refused_by_key(text: str, said: str) -> None:
    with pytest.raises(ConversionError, match=re.escape(said)):
        read(text)


def test_all_that_is_wrong_is_told_in_the_order_of_the_file() -> None:
    text = LINEAR.replace("{weight: 1}", "{}") + "chat_template: auto\nmodules: {}\n"
    with pytest.raises(ConversionError) as told:
        from_mergekit(text, "x.yaml")
    places = [line.split(" ")[0] for line in str(told.value).splitlines()]
    assert places == ["x.yaml:3:", "x.yaml:4:", "x.yaml:5:", "x.yaml:6:"]


@pytest.mark.parametrize("text", ["", "- a", "a: [", "a: 1\na: 2"])
def test_what_is_no_table_of_keys_is_refused(text: str) -> None:
    with pytest.raises((SpaceError, ConversionError)):
        read(text)
