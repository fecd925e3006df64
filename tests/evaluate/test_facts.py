"""What an item's document says of its kind and of the text it is about."""

from __future__ import annotations

import random
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from evomerge.checkpoints.locate import ZOO
from evomerge.evaluate.facts import clusters, strata
from evomerge.evaluate.items import Wanted, split_items
from evomerge.evaluate.task_library import TaskLibrary


def documents(count: int, **columns: Any) -> list[dict[str, Any]]:
    """Return documents whose columns are given as functions of their number."""
    return [{"question": f"{i} ?", **{name: of(i) for name, of in columns.items()}} for i in range(count)]


def kinds(docs: list[Any]) -> set[str]:
    return {label.partition("/")[0] for label in strata(docs, [1] * len(docs))}


def test_quarters_by_length_are_of_equal_size_and_keep_equal_lengths_together() -> None:
    found = strata(documents(100), list(range(100)))
    assert Counter(found) == {f"/{quarter}": 25 for quarter in range(4)}
    assert len(set(strata(documents(100), [7] * 100))) == 1
    assert strata(documents(4), [9, 5, 7, 5])[1] == strata(documents(4), [9, 5, 7, 5])[3]


def test_the_first_column_that_sorts_is_the_kind() -> None:
    docs = documents(60, Subject=lambda i: "abc"[i % 3], level=lambda i: i % 2)
    assert kinds(docs) == {"a", "b", "c"}
    assert kinds(documents(60, subject=lambda _: "one", level=lambda i: i % 2)) == {"0", "1"}


@pytest.mark.parametrize(
    "docs",
    [
        documents(60, topic=lambda i: f"topic {i}"),  # as good as an id
        documents(60, topic=lambda _: "one"),
        documents(60, answer=lambda i: i % 2),
        ["plain text"] * 60,
    ],
)
def test_other_columns_are_no_kinds(docs: list[Any]) -> None:
    assert kinds(docs) == {""}


@pytest.mark.parametrize("name", ["passage", "Context", "article", "story", "paragraph", "document"])
def test_items_about_one_text_have_one_id(name: str) -> None:
    docs = documents(60, **{name: lambda i: f"Once upon a time there were {i // 3} things."})
    found = clusters(docs, [str(i) for i in range(60)])
    assert len(set(found)) == 20
    assert all(found[i] == found[i + 1] == found[i + 2] for i in range(0, 60, 3))


def test_items_without_a_text_are_each_by_themselves() -> None:
    docs = documents(60, context=lambda i: "" if i < 20 else f"text {i // 4}")
    found = clusters(docs, [str(i) for i in range(60)])
    assert found[:20] == tuple(str(i) for i in range(20))
    assert len(set(found)) == 30


def test_a_text_may_be_structured() -> None:
    docs = documents(60, context=lambda i: {"title": "t", "lines": [str(i // 2)]})
    assert len(set(clusters(docs, [str(i) for i in range(60)]))) == 30


@pytest.mark.parametrize(
    "docs",
    [
        documents(60, passage=lambda i: f"text {i}"),  # none repeats
        documents(60, passage=lambda i: f"text {i % 4}"),  # too few to share out: rather a kind
        documents(60),
        ["plain text"] * 60,
    ],
)
def test_others_have_no_texts_in_common(docs: list[Any]) -> None:
    assert clusters(docs, [str(i) for i in range(60)]) == ()


@pytest.mark.parametrize("name", ["math_b", "stories_b"])
def test_a_shuffled_data_set_is_split_alike(tmp_path: Path, name: str) -> None:
    shutil.copytree(ZOO / "tasks", tmp_path / "tasks")
    file = tmp_path / "tasks" / "data" / f"{name}.jsonl"
    lines = file.read_text().splitlines()
    random.Random(1).shuffle(lines)
    file.write_text("\n".join(lines) + "\n")
    shuffled, own = (
        TaskLibrary(folder, few_shot=None, seed=0).load(name).facts
        for folder in (tmp_path / "tasks", ZOO / "tasks")
    )
    assert shuffled.items != own.items
    wanted = Wanted(search=200, select=300, report=600)
    assert split_items([shuffled], wanted, seed=0) == split_items([own], wanted, seed=0)
