"""What is wrong with the `path` of a space, said with its key and line."""

import pytest

from evomerge.errors import SpaceError
from evomerge.space import parse_space

MISTAKES = {
    "{form: slotz}": "`path` needs a `form` that is one of `slots`, `blocks`, .*, found `slotz`",
    "{}": r"`path` needs a `form` \(slots, blocks, layer_swap, prune or repeat\)",
    "5": "`path` must be a table of keys, found 5",
    "{form: slots, scal: 1}": r"`path.scal` is not a key here; did you mean `scale`\? \(known: ",
    "{form: blocks, repeats: 2}": r"`path.repeats` is not a key here .*\(known: .* times\)",
    "{form: slots, repeats: 0}": "`path.repeats` must be at least 1, found 0",
    "{form: slots, most: 2000}": "`path.most` must be at most 1024, found 2000",
    "{form: slots, most: 2.5}": "`path.most` must be a whole number, found 2.5",
    "{form: blocks, scale: {low: 0, high: 2}}": "`path.scale` must have `low` above 0, as other scales",
    "{form: blocks, scale: {low: 2, high: 1}}": "`path.scale` must have `low` below `high`, found 2 and 1",
    "{form: blocks, scale: -1}": "`path.scale` must be above 0 and finite, .* found -1",
    "{form: slots, scale: .inf}": "`path.scale` must be above 0 and finite, .* found inf",
    "{form: blocks, scale: abc}": r"`path.scale` must be a range \{low, high\} or a number, found 'abc'",
    "{form: blocks, models: [a, a]}": "`path.models` must name each model once, found a, a",
    "{form: blocks, models: []}": "`path.models` must not be empty",
    "{form: blocks, models: [a, nope]}": r"`path.models\[1\]` is unknown: no model named `nope`. Known: a",
    "{form: slots, embed: [nope]}": r"`path.embed\[0\]` is unknown: no model named `nope`",
    "{form: slots, head: nope}": "`path.head` is unknown: no model named `nope`",
    "{form: slots, head: []}": "`path.head` must name at least one model, and each once, found none",
    "{form: blocks, layers: [[0, 1, 2]]}": r"`path.layers` must list runs of layers \[first, last\]",
    "{form: layer_swap, task: nope}": "`path.task` is unknown: no model named `nope`",
    "{form: layer_swap, ends: [langage]}": r"`path.ends\[0\]` must be `language`, `task` or `average`",
    "{form: layer_swap, bottom: {low: 3, high: 1}}": "`path.bottom` must have `low` at most `high`",
    "{form: layer_swap, bottom: -1}": "`path.bottom` must be at least 0, found -1",
    "{form: repeat, times: 1}": "`path.times` must be at least 2, found 1",
    "{form: prune, count: many}": r"`path.count` must be a range \{low, high\} or a whole number",
}


@pytest.mark.parametrize(("path", "message"), MISTAKES.items(), ids=MISTAKES)
def test_a_mistake_is_told_in_one_line(path: str, message: str) -> None:
    text = f"sources: {{a: x, b: y}}\npath: {path}\nobjectives: [{{task: t}}]"
    with pytest.raises(SpaceError, match=f"^space.yaml:2: {message}") as caught:
        parse_space(text)
    assert len(str(caught.value).splitlines()) == 1


def test_genes_of_a_merge_that_nothing_takes_layers_of_are_refused() -> None:
    text = "sources: {a: x, b: y}\nmerge: {genes: {weight: 1}}\npath: {form: blocks}\nobjectives: [{task: t}]"
    with pytest.raises(
        SpaceError, match=r"`merge.genes` are searched by nothing: .* list it in `path.models`"
    ):
        parse_space(text)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("{form: blocks}", "`tokenizer` matches .* set `embed: merged` and `head: merged` under `path`"),
        ("{form: slots, models: [merged, b], head: [merged, b]}", "`tokenizer` matches .* `head: merged`"),
        ("{form: slots, models: [merged, b], embed: b}", "`tokenizer` matches .* `head: merged`"),
        ("{form: layer_swap, models: [merged, b]}", "`tokenizer` matches .*, but the path swaps"),
        ("{form: slots, models: [merged, b]}", None),
        ("{form: blocks, models: [a, b], embed: merged, head: [merged]}", None),
        ("{form: layer_swap}", None),
        ("{form: prune, models: [merged, b]}", None),
    ],
)  # fmt: skip
def test_tokens_are_matched_only_where_they_are_merged(path: str, message: str | None) -> None:
    text = f"sources: {{a: x, b: y, c: z}}\nmerge: {{base: c}}\npath: {path}\nobjectives: [{{task: t}}]\n"
    if message is None:
        assert parse_space(f"{text}tokenizer: union").tokenizer == "union"
        return
    with pytest.raises(SpaceError, match=message):
        parse_space(f"{text}tokenizer: union")


def test_a_stack_has_no_template_of_its_own() -> None:
    text = "sources: {a: x, b: y}\nmerge: {template: a}\npath: {form: FORM}\nobjectives: [{task: t}]"
    with pytest.raises(SpaceError, match=r"`merge.template` says nothing of stacks, which have the form of"):
        parse_space(text.replace("FORM", "blocks"))
    assert parse_space(text.replace("FORM", "layer_swap")).merge.template == "a"


def test_a_source_cannot_be_called_as_the_merge_is() -> None:
    text = "sources: {a: x, merged: y}\npath: {form: blocks, models: [a]}\nobjectives: [{task: t}]"
    with pytest.raises(SpaceError, match=r"`sources.merged` is what a path calls the space's own merge"):
        parse_space(text)


def test_a_merge_that_the_path_does_not_use_needs_no_base() -> None:
    space = parse_space("sources: {a: x, b: y}\npath: {form: blocks}\nobjectives: [{task: t}]")
    assert space.path_models == ("a", "b")
    assert not space.merges
    text = "sources: {a: x, b: y}\npath: {form: blocks, embed: merged}\nobjectives: [{task: t}]"
    with pytest.raises(SpaceError, match="`merge` needs `base`"):
        parse_space(text)
