"""Converted recipes are really merged: the numbers of mergekit's runs, and the same bytes both ways."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor

from evomerge import build_tensors, merge_tensors
from evomerge.checkpoints.locate import locate
from evomerge.mergekit.known import METHODS, their_words
from evomerge.mergekit.reading import from_mergekit
from evomerge.mergekit.writing import to_mergekit
from evomerge.recipe import Recipe
from tests.conformance.cases import ONLY, Case, assert_close, read_cases
from tests.conformance.conftest import HERE
from tests.conformance.merges import masks_of, params_of
from tests.mergekit import reference

ZOO = {
    "slerp": """\
merge_method: slerp
base_model: zoo:math
slices:
  - sources: [{model: zoo:math, layer_range: [0, 6]}, {model: zoo:lang, layer_range: [0, 6]}]
parameters:
  t:
    - {filter: self_attn, value: [0, 0.5, 0.3, 0.7, 1]}
    - {filter: mlp, value: [1, 0.5, 0.7, 0.3, 0]}
    - value: 0.5
dtype: float32
""",
    "linear": """\
merge_method: linear
models:
  - {model: zoo:math, parameters: {weight: [1, 0.2]}}
  - {model: zoo:lang, parameters: {weight: [{filter: mlp, value: [0, 0.5, 3]}, {value: 0.4}]}}
dtype: float32
""",
    "ties": """\
merge_method: ties
base_model: zoo:base
slices:
  - sources:
      - {model: zoo:base, layer_range: [0, 2]}
      - {model: zoo:math, layer_range: [0, 2], parameters: {weight: 0.8}}
      - {model: zoo:lang, layer_range: [0, 2], parameters: {weight: [0.2, 0.9]}}
  - sources:
      - {model: zoo:base, layer_range: [2, 6]}
      - {model: zoo:math, layer_range: [2, 6], parameters: {weight: 0.4, density: 0.9}}
      - {model: zoo:lang, layer_range: [2, 6], parameters: {weight: 0.6}}
parameters: {density: 0.5}
dtype: bfloat16
""",
    "dare_ties": """\
merge_method: dare_ties
base_model: zoo:base
models:
  - {model: zoo:math, parameters: {weight: 0.8, density: 0.6}}
  - {model: zoo:lang, parameters: {weight: 0.5, density: 0.6}}
dtype: float32
""",
    "stack": """\
merge_method: passthrough
slices:
  - sources: [{model: zoo:math, layer_range: [0, 4]}]
  - sources:
      - model: zoo:lang
        layer_range: [2, 6]
        parameters: {scale: [{filter: o_proj, value: 0.5}, {value: 1}]}
dtype: float32
""",
    "stacked merges": """\
merge_method: linear
slices:
  - sources:
      - {model: zoo:math, layer_range: [0, 4], parameters: {weight: [0, 1]}}
      - {model: zoo:lang, layer_range: [0, 4], parameters: {weight: 0.5}}
  - sources:
      - {model: zoo:math, layer_range: [3, 6], parameters: {weight: 0.3}}
      - {model: zoo:lang, layer_range: [3, 6], parameters: {weight: 0.7}}
dtype: float32
""",
    "nested": """\
name: inner
merge_method: model_stock
base_model: zoo:base
models: [zoo:math, zoo:logic]
dtype: float32
---
merge_method: slerp
base_model: inner
models: [zoo:lang]
parameters: {t: 0.3}
dtype: float32
""",
}
LAYERS = 6


@cache
def tensors(source: str) -> dict[str, Tensor]:
    return load_file(locate(source) / "model.safetensors")


def merged(recipe: Recipe) -> dict[str, Tensor]:
    configs = {
        name: json.loads((locate(ref.source) / "config.json").read_text())
        for name, ref in recipe.models.items()
    }
    weights = {name: tensors(ref.source) for name, ref in recipe.models.items()}
    return build_tensors(recipe, weights, configs)[0]


@pytest.mark.parametrize("text", ZOO.values(), ids=ZOO)
def test_both_ways_merge_to_the_same_bytes(text: str) -> None:
    recipe, _ = from_mergekit(text, layers_of=lambda model: LAYERS)
    again, _ = from_mergekit(to_mergekit(recipe)[0], layers_of=lambda model: LAYERS)
    first, second = merged(recipe), merged(again)
    assert list(first) == list(second)
    assert all(torch.equal(first[name].view(torch.uint8), second[name].view(torch.uint8)) for name in first)


def test_linear_weights_are_looked_up_tensor_by_tensor() -> None:
    config = yaml.safe_load(ZOO["linear"])
    slices = [{"sources": [{**each, "layer_range": [0, LAYERS]} for each in config["models"]]}]
    found = merged(from_mergekit(ZOO["linear"])[0])
    checked = 0
    for part, _, name, t in reference.places({**config, "slices": slices}):
        weights = [
            reference.value(config, part, each["model"], "weight", name, t) for each in part["sources"]
        ]
        parts = [
            weight * tensors(each["model"])[name].float()
            for weight, each in zip(weights, part["sources"], strict=True)
        ]
        torch.testing.assert_close(found[name], sum(parts) / sum(weights))
        checked += 1
    assert checked == len(reference.INSIDE) * LAYERS + 3


def test_a_stack_has_the_tensors_of_its_slices() -> None:
    found = merged(from_mergekit(ZOO["stack"])[0])
    lang = tensors("zoo:lang")
    assert torch.equal(
        found["model.layers.4.self_attn.o_proj.weight"], 0.5 * lang["model.layers.2.self_attn.o_proj.weight"]
    )
    assert torch.equal(found["model.layers.7.mlp.up_proj.weight"], lang["model.layers.5.mlp.up_proj.weight"])
    assert torch.equal(found["model.norm.weight"], lang["model.norm.weight"])


CASES = [
    case
    for case in read_cases(HERE)
    if case.entry["compat"] == "mergekit"
    and case.method in METHODS
    and case.kind in ("deterministic", "mask_given")
    and case.entry["scope"] == "tensor"
    and case.entry["dtype"] == "float32"
    and "alphas" not in {name for name, value in case.params.items() if not isinstance(value, str)}
]


@pytest.mark.parametrize("number", range(len(CASES)), ids=[each.id for each in CASES])
def test_a_converted_config_gives_the_numbers_of_mergekit(number: int) -> None:
    """`number` instead of the case, whose fixture name conformance's own plug-in takes."""
    case = CASES[number]
    recipe, _ = from_mergekit(yaml.safe_dump(config_of(case)))
    merge = recipe.merge
    params = {
        name: [value[source] for source in merge.sources] if isinstance(value, dict) else value
        for name, value in merge.params.items()
    }
    found = merge_tensors(
        merge.method, case.base, case.models, params,
        compat=merge.compat, keep_masks=masks_of(case),
    )  # fmt: skip
    assert_close(found[ONLY], case.expected["merged"], case)


def config_of(case: Case) -> dict[str, Any]:
    """Return a case as a recipe of mergekit, each list of numbers given to its models."""
    words = {"weights": "weight", **their_words(case.method)}
    known = METHODS[case.method].parameters
    given = {words.get(name, name): value for name, value in params_of(case).items()}
    overall = {name: value for name, value in given.items() if name in known and not isinstance(value, list)}
    overall.pop("rescale", None)
    models = [
        {
            "model": f"o/m{i}",
            "parameters": {name: value[i] for name, value in given.items() if isinstance(value, list)},
        }
        for i in range(len(case.models))
    ]
    base = {"base_model": "o/base"} if case.base is not None else {}
    return {"merge_method": case.method, **base, "models": models, "parameters": overall}


def test_the_cases_cover_most_methods() -> None:
    assert len({case.method for case in CASES}) >= 14
