"""Item scores on disk: what was written is read, whatever a crash left behind it."""

import math
import random
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.archive.items import ItemStore
from evomerge.types import ItemScores, Scored

ORDER = {"gsm": {"search": ["a", "b", "c"], "report": ["d"]}, "wiki": {"search": ["x", "y"], "report": ["z"]}}


def scored(*items: ItemScores) -> Scored:
    return Scored(scores={"gsm": 0.5}, items=items, merge_seconds=0.1, score_seconds=0.2, device="cpu")


def gsm(*scores: float, items: tuple[str, ...] = ("a", "b", "c"), metric: str = "acc") -> ItemScores:
    return ItemScores(task="gsm", metric=metric, filter="none", items=items, scores=scores)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "items.jsonl"


@pytest.fixture
def store(file: Path) -> ItemStore:
    return ItemStore(file, ORDER)


def test_scores_are_read_as_they_were_written(store: ItemStore) -> None:
    wiki = ItemScores(
        task="wiki", metric="ppl", filter="none", items=("x", "y"), scores=(-3.25, 1e-17), weights=(7.0, 2.5)
    )
    store.add(4, "search", scored(gsm(1.0, 0.0, 1 / 3), wiki))
    frame = store.frame()
    assert frame.pop("margin").isna().all()
    assert list(frame.itertuples(index=False, name=None)) == [
        (4, "search", "gsm", "acc", "none", "a", 1.0, 1.0),
        (4, "search", "gsm", "acc", "none", "b", 0.0, 1.0),
        (4, "search", "gsm", "acc", "none", "c", 1 / 3, 1.0),
        (4, "search", "wiki", "ppl", "none", "x", -3.25, 7.0),
        (4, "search", "wiki", "ppl", "none", "y", 1e-17, 2.5),
    ]
    assert store.read("search") == {4: (gsm(1.0, 0.0, 1 / 3), wiki)}
    assert store.read("report") == {}


def test_an_item_without_a_score_of_its_own_is_nan(store: ItemStore, file: Path) -> None:
    store.add(0, "search", scored(gsm(math.nan, 1.0, math.nan)))
    assert "NaN" not in file.read_text()  # which JSON has no word for
    found = list(store.frame()["score"])
    assert [math.isnan(score) for score in found] == [True, False, True]


def test_search_and_report_scores_of_a_trial_are_kept_apart(store: ItemStore) -> None:
    store.add(0, "search", scored(gsm(1.0, 1.0, 1.0)))
    store.add(0, "report", scored(gsm(0.0, items=("d",))))
    assert list(store.frame().groupby("split")["score"].mean().items()) == [("report", 0.0), ("search", 1.0)]


def test_a_trial_recorded_twice_counts_as_the_later_one(store: ItemStore) -> None:
    store.add(0, "search", scored(gsm(0.0, 0.0, 0.0)))
    store.add(1, "search", scored(gsm(0.5, 0.5, 0.5)))
    store.add(0, "search", scored(gsm(1.0, 1.0, 1.0)))
    frame = store.frame()
    assert len(frame) == 6
    assert frame[frame["trial"] == 0]["score"].tolist() == [1.0, 1.0, 1.0]


def test_trials_come_in_the_order_in_which_they_were_last_recorded(store: ItemStore) -> None:
    for trial in (2, 0, 1, 2):
        store.add(trial, "search", scored(gsm(1.0, 1.0, 1.0)))
    assert list(store.read("search")) == [0, 1, 2]


def test_two_metrics_of_a_task_are_two_sets_of_rows(store: ItemStore) -> None:
    store.add(0, "search", scored(gsm(0.0, 0.0, 0.0), gsm(1.0, 1.0, 1.0, metric="acc_norm")))
    assert store.frame().groupby("metric")["score"].sum().to_dict() == {"acc": 0.0, "acc_norm": 3.0}


def test_readers_ignore_a_line_that_is_being_written(store: ItemStore, file: Path) -> None:
    store.add(0, "search", scored(gsm(1.0, 1.0, 1.0)))
    whole = file.read_bytes()
    file.write_bytes(whole + whole[:25])
    assert len(store.frame()) == 3
    assert file.read_bytes() == whole + whole[:25]  # a reader writes nothing


def test_the_writer_cuts_a_torn_line_before_it_goes_on(store: ItemStore, file: Path) -> None:
    store.add(0, "search", scored(gsm(1.0, 1.0, 1.0)))
    file.write_bytes(file.read_bytes() + b'{"trial":1,"sp')
    store.repair()
    store.add(1, "search", scored(gsm(0.0, 0.0, 0.0)))
    assert store.frame()["trial"].tolist() == [0, 0, 0, 1, 1, 1]


def test_a_candidate_given_up_early_has_scores_of_the_first_items(store: ItemStore) -> None:
    store.add(2, "search", scored(gsm(1.0, 0.0, items=("a", "b"))))
    assert store.read("search") == {2: (gsm(1.0, 0.0, items=("a", "b")),)}
    assert store.frame()["item"].tolist() == ["a", "b"]


def test_a_candidate_scored_again_after_a_crash_has_its_later_items(store: ItemStore) -> None:
    """It may be given up at another look then: what it lost must not come back."""
    store.add(2, "search", scored(gsm(1.0, 0.0, 1.0)))
    store.add(2, "search", scored(gsm(1.0, 0.0, items=("a", "b"))))
    assert store.read("search") == {2: (gsm(1.0, 0.0, items=("a", "b")),)}


def test_the_items_of_one_trial_are_those_recorded_last_also_by_another_writer(
    store: ItemStore, file: Path
) -> None:
    assert store.of(2, "search") == ()
    store.add(2, "search", scored(gsm(1.0, 0.0, items=("a", "b"))))
    store.add(12, "search", scored(gsm(0.0, 0.0, 0.0)))
    assert store.of(2, "search") == (gsm(1.0, 0.0, items=("a", "b")),)
    ItemStore(file, ORDER).add(2, "search", scored(gsm(1.0, 0.0, 1.0)))
    store.add(2, "search", scored(gsm(1.0, 1.0, 1.0, metric="f1")))
    expected = (gsm(1.0, 0.0, 1.0), gsm(1.0, 1.0, 1.0, metric="f1"))
    assert store.of(2, "search") == expected == store.read("search")[2]
    assert store.of(2, "report") == store.of(1, "search") == ()
    with file.open("a", encoding="utf-8") as torn:
        torn.write('{"trial":2,"spl')
    assert store.of(2, "search") == expected


def test_margins_come_back_with_four_digits(store: ItemStore) -> None:
    margins = (-0.123456, 12.34567, 3e-9)
    store.add(0, "search", scored(replace(gsm(0.0, 1.0, 1.0), margins=margins)))
    store.add(1, "search", scored(replace(gsm(0.0, 1.0, 1.0), margins=(math.nan, 1.0, 2.0))))
    ((found,), (other,)) = store.read("search").values()
    assert found.margins == (-0.1235, 12.35, 3e-9)
    assert other.margins is not None
    assert [math.isnan(margin) for margin in other.margins] == [True, False, False]
    assert store.frame()["margin"].tolist()[:3] == [-0.1235, 12.35, 3e-9]


@pytest.mark.parametrize("kind", ["yes or no", "with margins", "log-likelihoods"])
def test_a_thousand_items_take_little_room(file: Path, kind: str) -> None:
    """Measured: 2.1 kB of answers that are right or wrong, 8.8 kB with margins, 24 kB of rolling texts."""
    rng = random.Random(0)
    names = tuple(f"{i:064x}" for i in range(1000))
    right = tuple(float(rng.random() < 0.6) for _ in names)
    loglikelihoods = tuple(rng.gauss(-200, 50) for _ in names)
    margins = tuple(rng.gauss(0, 3) for _ in names)
    weights = tuple(float(rng.randrange(20, 900)) for _ in names)
    given, most = {
        "yes or no": (gsm(*right, items=names), 2_500),
        "with margins": (replace(gsm(*right, items=names), margins=margins), 10_500),
        "log-likelihoods": (replace(gsm(*loglikelihoods, items=names), weights=weights), 26_000),
    }[kind]
    ItemStore(file, {"gsm": {"search": list(names)}}).add(0, "search", scored(given))
    assert most / 2 < file.stat().st_size < most


@pytest.mark.parametrize("items", [("b",), ("b", "a", "c"), ("a", "b", "d"), ("a", "b", "c", "d")])
def test_items_other_than_the_pinned_ones_are_refused(
    store: ItemStore, file: Path, items: tuple[str, ...]
) -> None:
    with pytest.raises(ValueError, match=r"^items of `gsm` are not those the run record pins$"):
        store.add(0, "search", scored(gsm(*[1.0] * len(items), items=items)))
    assert not file.exists()


def test_nothing_recorded_is_an_empty_table(store: ItemStore) -> None:
    frame = store.frame()
    assert frame.empty
    keys = ["trial", "split", "task", "metric", "filter", "item"]
    assert list(frame.columns) == [*keys, "score", "weight", "margin"]
