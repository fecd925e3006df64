"""From what a space says of measures and items to what a run record pins, its files read."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.archive.record import RunRecord, differences, from_json
from evomerge.checkpoints.locate import ZOO
from evomerge.controller.scoring import read_hashes, small_task_notes
from evomerge.controller.setup import resolve
from evomerge.errors import CheckpointError, RequestError, SpaceError, TaskError
from evomerge.evaluate.task_library import TaskLibrary
from evomerge.space import read_space

SPACE = """\
sources: {base: zoo:base, math: zoo:math}
merge: {base: base, layers: 1, genes: {weight: {low: 0, high: 1.5}}}
objectives: [{task: math_b}]
tasks: zoo:tasks
"""


def resolved(folder: Path, more: str, known: RunRecord | None = None) -> RunRecord:
    """Return the record of the space above with `more` keys."""
    (folder / "space.yaml").write_text(SPACE + more, encoding="utf-8")
    return resolve(read_space(folder / "space.yaml"), known=known)


def refusal(folder: Path, more: str, kind: type[RequestError]) -> str:
    with pytest.raises(kind) as caught:
        resolved(folder, more)
    return str(caught.value).removeprefix(f"{folder}/")


@pytest.fixture(scope="module")
def hashes() -> tuple[str, ...]:
    return TaskLibrary(ZOO / "tasks", few_shot=None, seed=0).load("math_b").facts.items


def counts(record: RunRecord, task: str) -> list[int]:
    return [len(items) for items in record.items[task].values()]


def test_held_out_measures_are_pinned_and_their_tasks_only_reported(tmp_path: Path) -> None:
    record = resolved(
        tmp_path,
        "held_out: [{task: stories_b, metric: bits_per_byte}, {task: lang_b}]\n"
        "items: {search: 20, select: 30, report: 40}\n",
    )
    assert [(each.name, each.aggregate) for each in record.held_out] == [
        ("stories_b", "bits_per_byte"),
        ("lang_b", "mean"),
    ]
    assert counts(record, "math_b") == [20, 30, 40]
    assert counts(record, "stories_b") == counts(record, "lang_b") == [0, 0, 40]
    assert [each.name for each in record.measures] == ["math_b"]
    again = from_json(record.to_json())
    assert again == record
    assert differences(record, again) == []


def test_what_is_held_out_may_not_be_searched_by(tmp_path: Path) -> None:
    """Not under another name either, and not by the default that is the same metric."""
    said = refusal(tmp_path, "held_out: [{task: math_b, metric: acc, name: other}]\n", SpaceError)
    assert said.startswith("space.yaml:5: `held_out[0]` is acc of `math_b`, which `math_b` searches by")
    said = refusal(tmp_path, "held_out: [{task: math_b, name: other}]\n", SpaceError)
    assert "`held_out[0]` is what objectives[0] measures" in said


def test_a_held_out_task_must_be_there(tmp_path: Path) -> None:
    said = refusal(tmp_path, "held_out: [{task: math_c}]\n", TaskError)
    assert said.startswith("space.yaml:5: `held_out[0].task`: no task named `math_c`. Did you mean `math_")


def test_items_of_a_file_are_those_searched_on(tmp_path: Path, hashes: tuple[str, ...]) -> None:
    (tmp_path / "searched.txt").write_text("\n".join([*hashes[:25], "", hashes[0]]) + "\n")
    more = "items: {search: searched.txt, select: 0, report: 30}\n"
    record = resolved(tmp_path, more)
    assert set(record.items["math_b"]["search"]) == set(hashes[:25])
    assert counts(record, "math_b") == [25, 0, 30]
    assert not set(record.items["math_b"]["report"]) & set(hashes[:25])
    (tmp_path / "searched.txt").unlink()
    assert differences(record, resolved(tmp_path, more, known=record)) == []  # as for sources that moved
    assert "no file of items `searched.txt`" in refusal(tmp_path, more, CheckpointError)


def test_another_file_of_items_is_told_when_a_run_goes_on(tmp_path: Path, hashes: tuple[str, ...]) -> None:
    more = "items: {search: searched.txt, report: 30}\n"
    (tmp_path / "searched.txt").write_text("\n".join(hashes[:25]))
    record = resolved(tmp_path, more)
    (tmp_path / "searched.txt").write_text("\n".join(hashes[:24]))
    assert differences(record, resolved(tmp_path, more, known=record)) == ["the items of task `math_b`"]


def test_an_item_in_two_files_is_refused_with_both(tmp_path: Path, hashes: tuple[str, ...]) -> None:
    (tmp_path / "one.txt").write_text("\n".join(hashes[:10]))
    (tmp_path / "two.txt").write_text("\n".join(hashes[9:20]))
    said = refusal(tmp_path, "items: {search: one.txt, report: two.txt}\n", SpaceError)
    assert said == (
        f"space.yaml:5: `items.report`: item {hashes[9]} is named for `search` and for `report`; "
        "leave it in one of them"
    )


def test_items_of_no_task_are_refused(tmp_path: Path) -> None:
    (tmp_path / "searched.txt").write_text("0" * 64)
    said = refusal(tmp_path, "items: {search: searched.txt}\n", TaskError)
    assert said == f"space.yaml:5: `items`: item {'0' * 64}, named for `search`, is in none of the tasks"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "names no item"),
        ("\n \n", "names no item"),
        ("0" * 64 + "\n# a comment\n", "line 2 of .* is no content hash"),
        ("A" * 64, "line 1 of .* is no content hash"),
    ],
)
def test_a_file_that_holds_other_lines_is_refused(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "items.txt").write_text(text)
    with pytest.raises(SpaceError, match=said):
        read_hashes(tmp_path / "items.txt")


def test_items_about_one_text_are_pinned_together(tmp_path: Path) -> None:
    """The zoo's items share no text; these are about one of a hundred each."""
    shutil.copytree(ZOO / "tasks", tmp_path / "tasks")
    file = tmp_path / "tasks" / "data" / "math_b.jsonl"
    lines = file.read_text().splitlines()
    file.write_text(
        "".join(f'{line[:-1]}, "passage": "number {place % 100}"}}\n' for place, line in enumerate(lines))
    )
    record = resolved(
        tmp_path,
        "held_out: [{task: lang_b}]\nitems: {search: 50, select: 50, report: 90}\n",
    )
    assert not record.clusters  # of the zoo's own tasks
    (tmp_path / "space.yaml").write_text((tmp_path / "space.yaml").read_text().replace("zoo:tasks", "tasks"))
    record = resolve(read_space(tmp_path / "space.yaml"))
    assert list(record.clusters) == ["math_b"]
    used = {item for items in record.items["math_b"].values() for item in items}
    assert record.clusters["math_b"].keys() == used
    texts = [{record.clusters["math_b"][i] for i in items} for items in record.items["math_b"].values()]
    assert sum(map(len, texts)) == len(set.union(*texts))
    assert from_json(record.to_json()) == record
    assert "lang_b` has only 90 report items" in small_task_notes(record)[1]
    assert "math_b` has only 5 search texts, 5 select texts and 8 report texts" in small_task_notes(record)[0]


def test_small_tasks_are_told_what_they_can_show(tmp_path: Path) -> None:
    record = resolved(
        tmp_path,
        "held_out: [{task: stories_b}]\nitems: {search: 40, select: 0, report: 100}\n",
    )
    assert small_task_notes(record) == [
        "task `math_b` has only 40 search items: two models that disagree on 15% of them are seldom told "
        "apart if they differ by less than 16 points"
    ]
    few = replace(record, items={**record.items, "stories_b": {"report": list("abc")}})
    assert small_task_notes(few)[1:] == [
        "task `stories_b` has only 3 report items: small differences between models do not show on them"
    ]
