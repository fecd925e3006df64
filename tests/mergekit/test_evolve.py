"""Configs of mergekit-evolve as spaces."""

from __future__ import annotations

import re

import pytest
import yaml

from evomerge.errors import ConversionError
from evomerge.mergekit.evolve import from_evolve
from evomerge.space import parse_space

CONFIG = """\
genome:
  models: [o/math, o/ja]
  merge_method: dare_ties
  base_model: o/base
  tokenizer_source: base
  layer_granularity: 8
  filters: [self_attn, mlp]
  normalize: false
tasks:
  - {name: gsm8k_ja, weight: 0.4, metric: "exact_match,strict-match"}
  - {name: jcommonsense, weight: -1.0}
limit: 100
num_fewshot: 4
shuffle: true
apply_chat_template: false
"""


def test_a_config_becomes_a_space() -> None:
    text, notes = from_evolve(CONFIG, layers_of=lambda model: 32)
    space = parse_space(text)
    assert {name: source.source for name, source in space.sources.items()} == {
        "base": "o/base", "math": "o/math", "ja": "o/ja",
    }  # fmt: skip
    assert (space.merge.base, space.merged, space.merge.methods) == ("base", ("math", "ja"), ("dare_ties",))
    assert (space.merge.layers, space.merge.compat, space.tokenizer) == (4, "mergekit", "base")
    assert space.merge.modules == [["rest"], "attn", "mlp", "embed", "head"]
    assert space.merge.genes["normalize"] is False
    assert (space.items.search, space.few_shot, space.dtype) == (100, 4, "bfloat16")
    assert [(each.task, each.metric, each.filter) for each in space.objectives] == [
        ("gsm8k_ja", "exact_match", "strict-match"),
        ("jcommonsense", "acc", "none"),
    ]
    said = " ".join(notes)
    assert "`tasks[0].weight` (0.4) has no equal" in said
    assert "`tasks[1].weight` turns a metric around" in said
    assert "chat template" not in said
    assert all(f"# {note}\n" in text for note in notes)


@pytest.mark.parametrize(
    ("change", "layers"),
    [
        (("layer_granularity: 8", "layer_granularity: 0"), 1),
        (("layer_granularity: 8", "layer_granularity: 1"), "each"),
        (("layer_granularity: 8", "layer_granularity: 4\n  smooth: true"), {"anchors": 8}),
    ],
)
def test_layers(change: tuple[str, str], layers: object) -> None:
    text, _ = from_evolve(CONFIG.replace(*change), layers_of=lambda model: 32)
    assert yaml.safe_load(text)["merge"]["layers"] == layers


def test_negative_weights_are_searched_if_allowed() -> None:
    def weight(text: str) -> object:
        return yaml.safe_load(from_evolve(text, layers_of=lambda model: 32)[0])["merge"]["genes"]["weight"]

    assert weight(CONFIG) == {"low": 0.0, "high": 1.5}
    allowed = CONFIG.replace("normalize: false", "allow_negative_weights: true")
    assert weight(allowed) == {"low": -1.0, "high": 1.5}


def test_slerp_of_two_models_searches_t() -> None:
    text = """\
genome: {models: [o/a, o/b], merge_method: slerp}
tasks: [gsm8k]
"""
    space = parse_space(from_evolve(text)[0])
    assert (space.merge.base, space.merged, space.sampler_choice.name) == ("a", ("b",), "cma")


REFUSED = [
    (("dare_ties", "della"), "`genome.merge_method` no method of mergekit-evolve named `della`"),
    (("  base_model: o/base\n", ""), "`genome.base_model` is missing"),
    (("[self_attn, mlp]", "[q_proj]"), "`genome.filters[0]` is `q_proj`, and a space tells apart"),
    (("layer_granularity: 8", "layer_granularity: 5"), "is 5, which does not divide the models' 32 layers"),
    (
        ("layer_granularity: 8", "layer_granularity: deep"),
        "`genome.layer_granularity` must be a whole number",
    ),
    (("limit: 100", "limit: many"), "`limit` must be a whole number"),
    (("weight: 0.4", "weight: much"), "`tasks[0].weight` must be a number"),
    (("shuffle: true", "shufle: true"), "Did you mean `shuffle`?"),
    (("tokenizer_source: base", "tokenizer_source: o/x"), "`genome.tokenizer_source` must be"),
    (("[o/math, o/ja]", "[o/math]"), "`genome.models` must be a list of models"),
]


@pytest.mark.parametrize(("change", "said"), REFUSED, ids=[said for _, said in REFUSED])
def test_what_cannot_be_converted_is_refused_by_key(change: tuple[str, str], said: str) -> None:
    with pytest.raises(ConversionError, match=re.escape(said)):
        from_evolve(CONFIG.replace(*change), layers_of=lambda model: 32)


def test_the_number_of_layers_is_asked_for_where_it_matters() -> None:
    with pytest.raises(ConversionError, match="needs the number of layers"):
        from_evolve(CONFIG)


def test_slerp_of_three_models_is_refused() -> None:
    with pytest.raises(ConversionError, match="are more than two for `slerp`"):
        from_evolve("genome: {models: [o/a, o/b, o/c], merge_method: slerp}\ntasks: [gsm8k]\n")
