"""Who comes into the last round, and who of them is chosen."""

from __future__ import annotations

import random
from collections.abc import Mapping
from pathlib import Path

import pytest

from evomerge.archive.front import Member, ParetoArchive
from evomerge.archive.run import Run
from evomerge.controller.finalists import Baselines, choose, finalists, reported_baselines, thinned
from evomerge.controller.gains import Comparison, gains
from evomerge.controller.sheets import Sheet, for_choosing, searched, sheet
from evomerge.recipe import Recipe, Slot
from evomerge.types import Split
from tests.controller.handmade import LABELS, Answers, MadeByHand, measure, record_of, rights, scored_on

COUNTS: dict[Split, int] = {"search": 10, "select": 10, "report": 10}


def test_the_best_five_by_search_score_baselines_among_them(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    for right in (0, 8, 0, 0, 3, 9, 7, 9, 2, 5):
        made.add(rights(right, 10))
    assert finalists(made.run) == (5, 7, 1, 6, 9)


def test_dropped_failed_and_infeasible_trials_are_no_finalists_nor_equals_of_another(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    for right in (0, 1, 0, 0, 2):
        made.add(rights(right, 10))
    made.drop(1.0, 0.0)
    made.fail()
    made.add(rights(9, 10), feasible=False)
    made.add(rights(9, 10), like="one")
    made.add(rights(9, 10), like="one")
    assert finalists(made.run) == (8, 4, 1, 0, 2)
    assert made.run.trials()["state"].tolist()[5:7] == ["dropped", "failed"]


def test_lower_is_better_turns_the_order_round(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure(up=False)], COUNTS), tmp_path / "run")
    for right in (9, 8, 7, 6, 5, 4, 3):
        made.add(rights(right, 10))
    assert finalists(made.run) == (6, 5, 4, 3, 2)


def test_of_several_objectives_the_front_comes_in(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure("a"), measure("b")], COUNTS), tmp_path / "run")
    for left, right in [(1, 1)] * 5 + [(9, 2), (5, 5), (4, 4), (2, 9)]:
        made.add(rights(left, 10), rights(right, 10))
    assert finalists(made.run) == (5, 6, 8)


def members(*scores: tuple[float, ...]) -> ParetoArchive:
    return ParetoArchive(tuple(Member(trial=i, scores=each) for i, each in enumerate(scores)))


def test_a_small_front_stays_whole() -> None:
    front = members((0, 2), (1, 1), (2, 0))
    assert thinned(front, 3) is front


def test_the_ends_stay_and_what_adds_most_volume_between_them() -> None:
    # a step that dominates much, and two that lie next to the ends
    front = members((0.0, 10.0), (0.1, 9.9), (6.0, 6.0), (9.9, 0.1), (10.0, 0.0))
    assert [member.trial for member in thinned(front, 3).front] == [0, 2, 4]


def test_of_two_close_ones_one_comes_in() -> None:
    front = members((0, 10), (5.0, 8.0), (5.1, 7.9), (8, 4), (10, 0))
    assert [member.trial for member in thinned(front, 4).front] in ([0, 1, 3, 4], [0, 2, 3, 4])


@pytest.mark.parametrize("objectives", [2, 3, 4])
def test_thinning_keeps_the_best_of_each_objective(objectives: int) -> None:
    rng = random.Random(objectives)
    front = ParetoArchive()
    for trial in range(60):
        point = [rng.gauss(0, 1) for _ in range(objectives)]
        scale = sum(x * x for x in point) ** 0.5
        front = front.add(Member(trial=trial, scores=tuple(abs(x) / scale for x in point)))
    kept = thinned(front, 10).front
    assert len(kept) == 10
    for i in range(objectives):
        assert max(front.front, key=lambda m: m.scores[i]) in kept


class Stacked(Run):
    """A run whose trials are stacks of so many layers."""

    layers: Mapping[int, int]

    def recipe(self, number: int) -> Recipe:
        path = tuple(Slot(model="base", layer=0) for _ in range(self.layers[number]))
        return Recipe(models=self.record.models, path=path)


@pytest.mark.parametrize(
    ("smaller", "expected"),
    [
        (
            (0.0, 0.0, *rights(8, 8)),
            1,
        ),  # wrong on two items and right on one: a difference of .1, give or take .18
        (rights(5, 10), 0),  # of .4, give or take .16
    ],
)
def test_the_smaller_model_is_chosen_if_it_is_no_worse_than_noise(
    tmp_path: Path, smaller: Answers, expected: int
) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    run = Stacked(made.folder, made.record)
    run.layers = {0: 6, 1: 4, 2: 6}
    sheets = {
        n: sheet(scored_on(made.record, "select", [given]))
        for n, given in enumerate((rights(9, 10), smaller, rights(8, 10)))
    }
    assert choose(run, [0, 1, 2], sheets).best == {"t": expected}


def test_of_models_of_equal_size_the_best_is_chosen(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    run = Stacked(made.folder, made.record)
    run.layers = dict.fromkeys(range(3), 4)
    sheets = {
        n: sheet(scored_on(made.record, "select", [rights(count, 10)])) for n, count in enumerate((8, 9, 9))
    }
    assert choose(run, [0, 1, 2], sheets).best == {"t": 1}


def test_tasks_without_select_items_are_judged_by_search_items(tmp_path: Path) -> None:
    record = record_of([measure("a"), measure("b")], COUNTS)
    record.items["b"]["select"].clear()
    made = MadeByHand(record, tmp_path / "run")
    for _ in range(2):
        made.add(rights(3, 10), rights(4, 10))
    selected = {1: sheet(scored_on(record, "select", [rights(9, 10)]))}
    found = for_choosing(made.run, searched(made.run), selected)
    assert found.keys() == {1}
    assert found[1].scores == {"a": 0.9, "b": 0.4}
    assert {each.task: sum(each.scores) for each in found[1].items} == {"a": 9, "b": 4}


def test_baselines_are_told_with_parents(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    for _ in range(6):
        made.add(rights(3, 10))
    found = reported_baselines(made.run)
    assert found == Baselines(labels=dict(enumerate(LABELS)), parents=(0, 1, 2))


def test_where_nothing_can_help_a_gain_is_seldom_proven(tmp_path: Path) -> None:
    """Thirty equally good candidates, of which the luckiest come into the last round: 400 searches."""
    counts: dict[Split, int] = {"search": 40, "select": 80, "report": 100}
    made = MadeByHand(record_of([measure()], counts), tmp_path / "run")
    rng, proven = random.Random(0), 0
    baselines = Baselines(labels=dict(enumerate(LABELS)), parents=(0, 1, 2))
    run = Stacked(made.folder, made.record)
    run.layers = dict.fromkeys(range(35), 4)
    for _ in range(400):
        drawn = {split: draw(made, split, rng) for split in ("search", "select", "report")}
        last = sorted(drawn["search"], key=lambda n: -drawn["search"][n].scores["t"])[:5]
        best = choose(run, last, drawn["select"]).best["t"]
        between = Comparison(baselines=baselines, sheets=drawn["report"], clusters={})
        proven += any(gain.verdict == "better" for gain in gains(between, measure(), best))
    assert proven <= 0.025 * 400


def draw(made: MadeByHand, split: Split, rng: random.Random) -> dict[int, Sheet]:
    """Return the sheets of 35 models that get each item right as often, and mostly the same ones."""
    hard = [rng.random() for _ in made.record.items["t"][split]]
    answers = {n: [float(rng.gauss(x, 0.15) < 0.6) for x in hard] for n in range(35)}
    return {n: sheet(scored_on(made.record, split, [given])) for n, given in answers.items()}
