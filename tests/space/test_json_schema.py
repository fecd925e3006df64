"""The JSON schema of the space file takes every shipped space and marks what people get wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator

from evomerge import plugins
from evomerge.space.json_schema import space_schema

ROOT = Path(__file__).parents[2]
SPACES = sorted((ROOT / "search_spaces").glob("*.yaml"))


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    return space_schema()


@pytest.fixture(scope="module")
def validator(schema: dict[str, Any]) -> Draft202012Validator:
    Draft202012Validator.check_schema(schema)
    return Draft202012Validator(schema)


def test_the_shipped_schema_is_what_the_code_declares(schema: dict[str, Any]) -> None:
    written = (ROOT / "docs" / "reference" / "space.schema.json").read_text(encoding="utf-8")
    assert json.loads(written) == schema, "docs/reference/space.schema.json is stale: run `make docs`"


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_shipped_space_is_valid_and_names_the_schema(
    path: Path, validator: Draft202012Validator
) -> None:
    text = path.read_text(encoding="utf-8")
    assert [error.message for error in validator.iter_errors(yaml.safe_load(text))] == []
    first, _, _ = text.partition("\n")
    named = first.removeprefix("# yaml-language-server: $schema=")
    assert (path.parent / named).resolve() == ROOT / "docs" / "reference" / "space.schema.json"


def test_every_key_is_described(schema: dict[str, Any]) -> None:
    tables = {"Space": schema, **schema["$defs"]}
    bare = [
        f"{name}.{key}"
        for name, table in tables.items()
        for key, each in table.get("properties", {}).items()
        if not each.get("description")
    ]
    assert bare == []


def test_plug_ins_are_named(schema: dict[str, Any]) -> None:
    one, several = schema["$defs"]["MergeSpace"]["properties"]["method"]["anyOf"]
    assert one["enum"] == several["items"]["enum"] == list(plugins.names("methods"))
    assert set(plugins.names("samplers")) <= set(json.dumps(schema["properties"]["sampler"]).split('"'))
    genes = schema["$defs"]["MergeSpace"]["properties"]["genes"]["properties"]
    assert "ties" in genes["density"]["description"]


GOOD = """\
sources: {base: zoo:base, math: {source: zoo:math, revision: main}, best: {run: runs/x, pick: 3}}
merge: {base: base, method: [ties, linear], layers: {anchors: 3}, genes: {weight: 1.0, density: [0.2, 0.4]}}
path: {form: slots, models: [merged, math], scale: {low: 0.5, high: 1.5}}
objectives: [{task: a}, {task: b, metric: acc, filter: none, name: other}]
constraints: [{task: c, max: 3}]
items: {search: 10, select: 0, report: hashes.txt}
racing: {looks: [10, 20], alpha: 0.1}
sampler: {name: optunahub:some, options: {x: 1}}
candidate_time_limit: 2.5
"""


@pytest.mark.parametrize(
    "changed", ["", "racing: off", "sampler: tpe", "sampler: optunahub:samplers/x", "path: "]
)
def test_all_kinds_of_values_are_taken(changed: str, validator: Draft202012Validator) -> None:
    content = {**yaml.safe_load(GOOD), **(yaml.safe_load(changed) or {})}
    assert [error.message for error in validator.iter_errors(content)] == []


def test_off_is_a_word_to_editors(validator: Draft202012Validator) -> None:
    assert validator.is_valid({**yaml.safe_load(GOOD), "racing": "off"})


@pytest.mark.parametrize(
    "changed",
    [
        "objective: [{task: a}]",
        "objectives: []",
        "objectives: [{metric: acc}]",
        "constraints: [{task: a}]",
        "constraints: [{task: a, min: low}]",
        "merge: {method: tie}",
        "merge: {method: [ties, tie]}",
        "merge: {genes: {wieght: 1}}",
        "merge: {genes: {weight: {low: 0}}}",
        "merge: {genes: {weight: {min: 0, max: 1}}}",
        "merge: {layers: all}",
        "merge: {layers: 0}",
        "merge: {modules: [[attn, mpl, rest], embed, head]}",
        "path: {form: stack}",
        "path: {form: prune, times: 2}",
        "sampler: cmaes",
        "sampler: {name: cmaes}",
        "budget: many",
        "budget: 0",
        "seed: -1",
        "dtype: fp16",
        "sources: {base: {source: a, run: b}}",
        "sources: {base: {sauce: a}}",
        "sources: {}",
        'sources: {"my model": zoo:base}',
        "items: {search: -1}",
        "items: 200",
        "racing: {looks: []}",
        "racing: sometimes",
        "backend: tgi",
        "threads: 2000",
    ],
)
def test_typical_mistakes_are_marked(changed: str, validator: Draft202012Validator) -> None:
    assert not validator.is_valid({**yaml.safe_load(GOOD), **yaml.safe_load(changed)})


@pytest.mark.parametrize("key", ["sources", "objectives"])
def test_what_must_be_there_is_missed(key: str, validator: Draft202012Validator) -> None:
    content = yaml.safe_load(GOOD)
    del content[key]
    assert not validator.is_valid(content)
