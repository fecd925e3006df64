"""Search and report items never meet, and do not depend on the data set's order."""

from __future__ import annotations

import pytest

from evomerge.errors import TaskError
from evomerge.evaluate.items import split_items

ITEMS = [f"{i:064x}" for i in range(100)]


def test_search_and_report_items_are_disjoint_and_as_many_as_asked() -> None:
    split = split_items("t", ITEMS, search=30, report=60, seed=0)
    assert (len(split["search"]), len(split["report"])) == (30, 60)
    assert not set(split["search"]) & set(split["report"])


def test_order_of_the_data_set_does_not_matter() -> None:
    assert split_items("t", ITEMS, search=30, report=60, seed=0) == split_items(
        "t", ITEMS[::-1], search=30, report=60, seed=0
    )


def test_another_seed_or_task_splits_otherwise() -> None:
    one = split_items("t", ITEMS, search=30, report=60, seed=0)
    assert one != split_items("t", ITEMS, search=30, report=60, seed=1)
    assert one != split_items("u", ITEMS, search=30, report=60, seed=0)


def test_fewer_search_items_are_a_prefix_of_more() -> None:
    few = split_items("t", ITEMS, search=10, report=10, seed=0)["search"]
    many = split_items("t", ITEMS, search=50, report=10, seed=0)["search"]
    assert many[:10] == few


def test_by_default_half_the_items_are_searched_on() -> None:
    split = split_items("t", ITEMS, search=None, report=None, seed=0)
    assert (len(split["search"]), len(split["report"])) == (50, 50)


@pytest.mark.parametrize(("search", "report"), [(60, 60), (101, None), (100, None)])
def test_too_few_items_are_refused(search: int, report: int | None) -> None:
    with pytest.raises(TaskError, match="has 100 items"):
        split_items("t", ITEMS, search=search, report=report, seed=0)
