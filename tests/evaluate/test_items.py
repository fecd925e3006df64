"""Splits never meet, whatever tasks share, and any first part of one has each stratum in proportion."""

from __future__ import annotations

import hashlib
import itertools
from collections import Counter
from collections.abc import Sequence

import pytest

from evomerge.errors import TaskError
from evomerge.evaluate.facts import TaskFacts
from evomerge.evaluate.items import SPLITS, ItemSplit, Wanted, split_items
from evomerge.types import Split

KINDS = ("gain", "lose", "times", "times", "times", "times", "times", "times")  # one, one and six in eight


def hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def task(
    name: str, numbers: Sequence[int], *, kinds: Sequence[str] = KINDS, texts: int | None = None
) -> TaskFacts:
    """Return the facts of a task with the items of these numbers, some of `texts` texts each is about."""
    return TaskFacts(
        name=name,
        metrics={"acc": True},
        aggregates={"acc": "mean"},
        filters=("none",),
        items=tuple(hashed(str(number)) for number in numbers),
        strata=tuple(kinds[number % len(kinds)] for number in numbers),
        clusters=tuple(hashed(f"text {number % texts}") for number in numbers) if texts else (),
    )


def split_one(facts: TaskFacts, wanted: Wanted, seed: int = 0) -> ItemSplit:
    return split_items([facts], wanted, seed=seed)[facts.name]


def sizes(split: ItemSplit) -> tuple[int, ...]:
    return tuple(len(split[part]) for part in SPLITS)


def apart(splits: Sequence[ItemSplit]) -> bool:
    """Whether no two different splits, of the same task or of two, have an item in common."""
    of = {part: {item for split in splits for item in split[part]} for part in SPLITS}
    return not any(of[one] & of[other] for one, other in itertools.combinations(SPLITS, 2))


def test_splits_are_disjoint_and_as_large_as_asked() -> None:
    split = split_one(task("t", range(100)), Wanted(search=30, select=10, report=50))
    assert sizes(split) == (30, 10, 50)
    assert apart([split])


@pytest.mark.parametrize("seed", range(3))
def test_every_first_part_of_every_split_has_each_stratum_in_proportion(seed: int) -> None:
    facts = task("t", range(800))
    stratum = dict(zip(facts.items, facts.strata, strict=True))
    shares = Counter(facts.strata)
    for items in split_one(facts, Wanted(search=200, select=300, report=250), seed).values():
        for length in range(1, len(items) + 1):
            found = Counter(stratum[item] for item in items[:length])
            for kind, size in shares.items():
                assert abs(found[kind] - length * size / len(facts.items)) <= 2.5


def test_a_plain_shuffle_would_not_be_in_proportion() -> None:
    """The bound above is one that other orders break: here that of the hashes."""
    facts = task("t", range(800))
    stratum = dict(zip(facts.items, facts.strata, strict=True))
    found = itertools.accumulate(stratum[item] == "times" for item in sorted(facts.items))
    assert max(abs(count - 0.75 * length) for length, count in enumerate(found, start=1)) > 5


def test_items_of_a_stratum_come_in_random_order() -> None:
    facts = task("t", range(200), kinds=("all",))
    number = {hashed(str(i)): i for i in range(200)}
    found = [number[item] for item in split_one(facts, Wanted(search=100, report=100))["search"]]
    rising = sum(b > a for a, b in itertools.pairwise(found))
    assert 35 <= rising <= 65
    assert 80 <= sum(found) / 100 <= 119


@pytest.mark.parametrize("texts", [None, 25])
def test_the_order_of_the_data_set_does_not_matter(texts: int | None) -> None:
    wanted = Wanted(search=30, select=20, report=30)
    forward = split_one(task("t", range(100), texts=texts), wanted)
    assert forward == split_one(task("t", [*range(50, 100), *range(50)], texts=texts), wanted)
    assert forward == split_one(task("t", range(100)[::-1], texts=texts), wanted)


def test_another_seed_splits_otherwise() -> None:
    facts, wanted = task("t", range(100)), Wanted(search=30, report=60)
    one, other = (set(split_one(facts, wanted, seed)["search"]) for seed in (0, 1))
    assert one != other


def test_fewer_search_items_are_among_those_of_more() -> None:
    facts = task("t", range(100))
    few, many = (set(split_one(facts, Wanted(search=n, report=10))["search"]) for n in (10, 50))
    assert few < many


@pytest.mark.parametrize(
    ("count", "wanted", "found"),
    [
        (100, Wanted(), (40, 30, 30)),
        (2000, Wanted(), (200, 500, 500)),
        (900, Wanted(), (200, 350, 350)),
        (3, Wanted(), (1, 1, 1)),
        (2, Wanted(), (1, 0, 1)),
        (100, Wanted(search=40, report=60), (40, 0, 60)),
        (600, Wanted(search=40, report=60), (40, 500, 60)),
        (100, Wanted(select=0), (40, 0, 60)),
        (100, Wanted(select=30), (40, 30, 30)),
        (100, Wanted(report=95), (5, 0, 95)),
        (100, Wanted(search=98), (98, 1, 1)),
    ],
)
def test_what_is_left_open_suits_the_task(count: int, wanted: Wanted, found: tuple[int, ...]) -> None:
    assert sizes(split_one(task("t", range(count)), wanted)) == found


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (Wanted(search=60, report=60), "too few for 60 to search on and 60 others to report on"),
        (Wanted(search=101), "too few for 101 to search on and 1 others to report on"),
        (Wanted(search=100), "too few for 100 to search on and 1 others to report on"),
        (
            Wanted(search=40, select=40, report=40),
            "too few for 40 to search on, 40 others to select on and 40 others to report on",
        ),
    ],
)
def test_too_few_items_are_refused(wanted: Wanted, said: str) -> None:
    with pytest.raises(TaskError, match=f"^task `t` has 100 items, {said}; lower `items`$"):
        split_one(task("t", range(100)), wanted)


def test_a_text_is_in_one_split_and_the_rest_of_a_cut_one_is_not_used() -> None:
    facts = task("t", range(300), texts=30)  # ten items to a text
    text = dict(zip(facts.items, facts.clusters, strict=True))
    split = split_one(facts, Wanted(search=95, select=62, report=88))
    assert sizes(split) == (95, 62, 88)
    of = {part: {text[item] for item in items} for part, items in split.items()}
    assert [len(texts) for texts in of.values()] == [10, 7, 9]
    assert not any(of[one] & of[other] for one, other in itertools.combinations(SPLITS, 2))
    first = [text[item] for item in split["search"][:10]]
    assert len(set(first)) > 5  # a short first part is of many texts


def test_whole_texts_may_leave_too_few() -> None:
    facts = task("t", range(100), texts=10)
    with pytest.raises(TaskError, match=r"has 100 items about 10 texts, too few for 45 .*texts stay whole"):
        split_one(facts, Wanted(search=45, select=0, report=55))


def test_tasks_that_ask_the_same_items_split_them_alike() -> None:
    """Two prompt styles of one data set, whose prompts are long in other places."""
    plain, wordy = task("plain", range(300)), task("wordy", range(300), kinds=("long", "short", "long"))
    splits = split_items([plain, wordy], Wanted(search=50, select=50, report=100), seed=0)
    for part in SPLITS:
        assert set(splits["plain"][part]) == set(splits["wordy"][part])


def test_tasks_that_share_some_items_keep_them_apart() -> None:
    """The smaller of the two chooses first, however they are listed."""
    tasks = [task("large", range(1000)), task("small", range(900, 1200))]
    for listed in (tasks, tasks[::-1]):
        splits = split_items(listed, Wanted(search=100, select=80, report=100), seed=0)
        assert list(splits) == [facts.name for facts in listed]
        assert {sizes(split) for split in splits.values()} == {(100, 80, 100)}
        assert apart(list(splits.values()))


def test_tasks_that_ask_about_the_same_texts_keep_them_apart() -> None:
    tasks = [task("one", range(150), texts=30), task("two", range(300, 600), texts=30)]
    splits = split_items(tasks, Wanted(search=40, select=30, report=40), seed=0)
    text = {item: of for facts in tasks for item, of in zip(facts.items, facts.clusters, strict=True)}
    for one, other in itertools.combinations(SPLITS, 2):
        ours, theirs = ({text[i] for split in splits.values() for i in split[part]} for part in (one, other))
        assert not ours & theirs


def test_a_task_that_is_only_reported_has_report_items_alone() -> None:
    tasks = [task("held", range(100)), task("searched", range(50, 400))]
    splits = split_items(tasks, Wanted(search=60, select=60, report=70), seed=0, report_only={"held"})
    assert [sizes(split) for split in splits.values()] == [(0, 0, 70), (60, 60, 70)]
    assert apart(list(splits.values()))
    alone = split_items([tasks[0]], Wanted(), seed=0, report_only={"held"})
    assert sizes(alone["held"]) == (0, 0, 100)


def test_named_items_are_taken_and_no_others() -> None:
    facts = task("t", range(100))
    named: dict[str, Split] = {
        **dict.fromkeys(facts.items[:30], "search"),
        **dict.fromkeys(facts.items[90:], "report"),
    }
    split = split_one(facts, Wanted(named=named, chosen=frozenset({"search", "report"})))
    assert set(split["search"]) == set(facts.items[:30])
    assert set(split["report"]) == set(facts.items[90:])
    assert set(split["select"]) == set(facts.items[30:90])
    some = split_one(
        facts,
        Wanted(named=dict.fromkeys(facts.items[:30], "search"), chosen=frozenset({"search"}), report=20),
    )
    assert sizes(some) == (30, 50, 20)
    assert apart([some])


def test_a_text_with_a_named_item_has_no_other_in_another_split() -> None:
    facts = task("t", range(100), texts=20)
    named: dict[str, Split] = dict.fromkeys(facts.items[:10], "search")
    split = split_one(facts, Wanted(named=named, chosen=frozenset({"search"}), report=40))
    text = dict(zip(facts.items, facts.clusters, strict=True))
    assert set(split["search"]) == set(named)
    assert not {text[item] for item in named} & {text[item] for item in (*split["select"], *split["report"])}


def test_named_items_must_be_there() -> None:
    facts = task("t", range(10))
    lost = hashed("lost")
    with pytest.raises(TaskError, match=f"item {lost}, named for `search`, is in none of the tasks"):
        split_one(facts, Wanted(named={lost: "search"}, chosen=frozenset({"search"})))
    other = task("u", range(20, 30))
    wanted = Wanted(named={other.items[0]: "search"}, chosen=frozenset({"search"}))
    with pytest.raises(TaskError, match="task `t` has none of the items named for `search`"):
        split_items([facts, other], wanted, seed=0)
