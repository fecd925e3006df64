"""The task folder: items are unique and the same in both languages, and lm-eval reads it from anywhere."""

import json
import os
from pathlib import Path

import pytest

from evomerge.zoo.catalog import shipped_tasks
from evomerge.zoo.items import CHOICE_ITEMS, GENERATION_ITEMS, SENTENCE_ITEMS
from evomerge.zoo.problems import HELD_OUT_PAIRS, OPTION_COUNT
from evomerge.zoo.tasks import read_items, write_tasks

CHOICE = [f"{subject}_{language}" for subject in ("math", "lang", "logic") for language in "ab"]
COUNTS = dict.fromkeys(CHOICE, CHOICE_ITEMS) | {
    "math_a_gen": GENERATION_ITEMS,
    "math_b_gen": GENERATION_ITEMS,
}
COUNTS |= {"word_b": SENTENCE_ITEMS, "stories_b": SENTENCE_ITEMS}


def test_shipped_tasks_are_what_is_written_now(tmp_path: Path) -> None:
    write_tasks(tmp_path / "tasks")
    written = {p.relative_to(tmp_path / "tasks"): p.read_bytes() for p in (tmp_path / "tasks").rglob("*.*")}
    shipped = {
        p.relative_to(shipped_tasks()): p.read_bytes()
        for p in shipped_tasks().rglob("*.*")
        if p.suffix != ".pyc"
    }
    assert written == shipped


@pytest.mark.parametrize("task", COUNTS)
def test_no_item_appears_twice(task: str) -> None:
    items = read_items(shipped_tasks(), task)
    shown = [item.get("prompt") or item["text"] for item in items]
    assert len(items) == len(set(shown)) == len({item["id"] for item in items}) == COUNTS[task]
    assert len({item["kind"] for item in items}) in (2, 3)


@pytest.mark.parametrize("task", CHOICE)
def test_options_hold_the_right_answer_once_in_every_place(task: str) -> None:
    items = read_items(shipped_tasks(), task)
    for item in items:
        assert len(set(item["options"])) == OPTION_COUNT
    places = [item["gold"] for item in items]
    assert max(places.count(place) for place in range(OPTION_COUNT)) < 1.4 * len(items) / OPTION_COUNT


@pytest.mark.parametrize("subject", ["math", "lang", "logic"])
def test_both_languages_ask_the_same(subject: str) -> None:
    a, b = (read_items(shipped_tasks(), f"{subject}_{language}") for language in "ab")
    assert [(i["kind"], i["options"], i["gold"]) for i in a] == [
        (i["kind"], i["options"], i["gold"]) for i in b
    ]


def test_held_out_pairs_are_asked_about() -> None:
    pairs = [
        tuple(int(w) for w in i["prompt"].split() if w.isdigit())[:2]
        for i in read_items(shipped_tasks(), "math_b")
    ]
    assert 0.03 < sum(pair in HELD_OUT_PAIRS for pair in pairs) / len(pairs) < 0.12


def test_lm_eval_loads_every_task_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from lm_eval.tasks import TaskManager

    monkeypatch.chdir(tmp_path)
    manager = TaskManager(include_path=str(shipped_tasks()), include_defaults=False)
    tasks = manager.load(list(COUNTS))["tasks"]
    assert {name: len(task.eval_docs) for name, task in tasks.items()} == COUNTS
    choice = tasks["math_b"]
    choice.build_all_requests(limit=2)
    first = read_items(shipped_tasks(), "math_b")[0]
    assert [i.args for i in choice.instances[:OPTION_COUNT]] == [
        (first["prompt"], f" {o}") for o in first["options"]
    ]


def test_items_are_json_lines() -> None:
    for path in sorted((shipped_tasks() / "data").iterdir()):
        for line in path.read_text(encoding="utf-8").splitlines():
            assert json.loads(line)["id"].startswith(path.stem), os.fspath(path)
