"""A space with a path, written into a run's record and read again."""

import json

import pytest

from evomerge.space import Space, parse_space

PATHS = (
    "{form: slots}",
    "{form: slots, models: [a, merged], scale: 1, most: 9, pinned: false, embed: b, head: [a, b]}",
    "{form: blocks, scale: {low: 0.5, high: 2, log: true}, layers: [[0, 1], [2, 3]], times: 3}",
    "{form: blocks, layers: each}",
    "{form: layer_swap}",
    "{form: layer_swap, task: a, language: [b], bottom: 2, top: {low: 0, high: 1}, ends: task}",
    "{form: layer_swap, curve: each, ends: [task, average]}",
    "{form: layer_swap, curve: {anchors: 3}}",
    "{form: prune, count: {low: 1, high: 2}}",
    "{form: repeat, models: [b], count: 2, times: 3, pinned: false}",
)


@pytest.mark.parametrize("path", PATHS)
def test_a_space_is_the_same_out_of_a_record(path: str) -> None:
    text = f"sources: {{a: x, b: y, c: z}}\nmerge: {{base: c}}\npath: {path}\nobjectives: [{{task: t}}]"
    space = parse_space(text)
    stored = json.dumps(space.model_dump(mode="json", exclude_none=True))
    assert Space.model_validate(json.loads(stored)) == space
