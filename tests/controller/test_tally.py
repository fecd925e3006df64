"""Counts, bests and front of a search, with baselines apart from candidates."""

from dataclasses import replace

import pytest

from evomerge.archive.record import RunRecord
from evomerge.controller.tally import Tally
from evomerge.space import parse_space
from evomerge.types import Measure

UP = Measure(name="acc", task="t", metric="acc", filter="none", higher_is_better=True)
DOWN = Measure(name="ppl", task="u", metric="ppl", filter="none", higher_is_better=False)
RECORD = RunRecord(
    study="s",
    space=parse_space("sources: {a: a, b: b}\nmerge: {method: linear}\nobjectives: [{task: t}, {task: u}]\n"),
    layers=1,
    models={},
    paths={},
    tasks=None,
    objectives=(UP, DOWN),
    constraints=(),
    items={"t": {"search": ["a", "b"]}, "u": {"search": ["c"]}},
    storage=None,
    provenance={},
)


@pytest.fixture
def tally() -> Tally:
    return Tally(record=RECORD)


def add(
    tally: Tally, trial: int, acc: float, ppl: float, *, baseline: bool = False, feasible: bool = True
) -> bool:
    return tally.add_scored(trial, {"acc": acc, "ppl": ppl}, baseline=baseline, feasible=feasible)


def trials(tally: Tally) -> set[int]:
    return {member.trial for member in tally.archive.front}


def test_nothing_found_is_said_as_such(tally: Tally) -> None:
    found = tally.snapshot(budget=9, running=2)
    assert (found.scored, found.failed, found.finished, found.running, found.budget) == (0, 0, 0, 2, 9)
    assert (found.best, found.front, found.hypervolume, found.last_failure) == ((), 0, None, None)


def test_scored_and_failed_are_counted_apart(tally: Tally) -> None:
    add(tally, 0, 0.5, 9.0)
    tally.add_failed("first", baseline=True)
    tally.add_failed("second", baseline=False)
    found = tally.snapshot(budget=9, running=0)
    assert (found.scored, found.failed, found.finished, found.last_failure) == (1, 2, 3, "second")


def test_it_says_whether_the_front_changed(tally: Tally) -> None:
    assert add(tally, 0, 0.5, 9.0)
    assert not add(tally, 1, 0.4, 9.5)
    assert add(tally, 2, 0.4, 8.0)
    assert add(tally, 3, 0.5, 9.0)  # equal scores all stay
    assert not add(tally, 4, 0.9, 1.0, feasible=False)
    assert trials(tally) == {0, 2, 3}


def test_lower_is_better_where_the_measure_says_so(tally: Tally) -> None:
    add(tally, 0, 0.5, 9.0)
    add(tally, 1, 0.4, 8.0)
    add(tally, 2, 0.3, 7.0, feasible=False)
    acc, ppl = tally.snapshot(budget=9, running=0).best
    assert (acc.objective, acc.score, acc.trial) == (UP, 0.5, 0)
    assert (ppl.objective, ppl.score, ppl.trial) == (DOWN, 8.0, 1)
    assert acc.baseline is None


def test_of_equals_the_earliest_is_the_best(tally: Tally) -> None:
    add(tally, 3, 0.5, 9.0)
    add(tally, 1, 0.5, 9.0)
    assert [best.trial for best in tally.snapshot(budget=9, running=0).best] == [1, 1]


def test_the_best_baseline_stands_beside_the_best(tally: Tally) -> None:
    add(tally, 0, 0.3, 9.0, baseline=True)
    add(tally, 1, 0.2, 8.0, baseline=True)
    add(tally, 2, 0.5, 8.5)
    acc, ppl = tally.snapshot(budget=9, running=0).best
    assert (acc.score, acc.baseline) == (0.5, 0.3)
    assert (ppl.score, ppl.baseline, ppl.trial) == (8.0, 8.0, 1)


def test_an_infeasible_baseline_is_still_what_to_beat(tally: Tally) -> None:
    add(tally, 0, 0.9, 5.0, baseline=True, feasible=False)
    add(tally, 1, 0.5, 9.0)
    best = tally.snapshot(budget=9, running=0).best
    assert [(each.score, each.baseline) for each in best] == [(0.5, 0.9), (9.0, 5.0)]


def test_hypervolume_is_measured_from_the_worst_of_the_baselines(tally: Tally) -> None:
    add(tally, 0, 0.3, 9.0, baseline=True)
    add(tally, 1, 0.2, 8.0, baseline=True)
    assert tally.hypervolume() == pytest.approx(0.0)  # from (0.2, 9) neither is better in both
    add(tally, 2, 0.5, 7.0)
    assert tally.hypervolume() == pytest.approx((0.5 - 0.2) * (9.0 - 7.0))


def test_hypervolume_never_shrinks_once_the_baselines_are_in(tally: Tally) -> None:
    add(tally, 0, 0.3, 9.0, baseline=True)
    found = []
    for trial, (acc, ppl) in enumerate([(0.4, 8.0), (0.2, 1.0), (0.6, 8.5), (0.5, 5.0), (0.1, 9.9)], start=1):
        add(tally, trial, acc, ppl)
        found.append(tally.hypervolume() or 0.0)
    assert found == sorted(found)
    assert found[-1] > found[0] > 0


def test_one_objective_needs_no_second() -> None:
    tally = Tally(record=replace(RECORD, objectives=(UP,)))
    tally.add_scored(0, {"acc": 0.25, "extra": 1.0}, baseline=True, feasible=True)
    tally.add_scored(1, {"acc": 0.75}, baseline=False, feasible=True)
    assert tally.hypervolume() == pytest.approx(0.5)
    assert trials(tally) == {1}


def test_earlier_sittings_count_but_not_in_the_rate(tally: Tally) -> None:
    add(tally, 0, 0.5, 9.0)
    tally.add_failed("no", baseline=False)
    tally.begin()
    add(tally, 2, 0.4, 9.0)
    found = tally.snapshot(budget=9, running=0)
    assert (found.finished, found.finished_now) == (3, 1)
    assert replace(found, seconds=30.0).per_minute == 2.0
    assert replace(found, seconds=0.0).per_minute == 0.0


def test_items_are_counted_against_scoring_all_on_all(tally: Tally) -> None:
    add(tally, 0, 0.5, 9.0, baseline=True)
    tally.add_dropped(2)
    tally.add_inherited()
    tally.add_inherited(1)
    tally.add_failed("no", baseline=False)
    found = tally.snapshot(budget=9, running=0)
    assert (found.scored, found.dropped, found.inherited, found.failed, found.finished) == (1, 1, 2, 1, 5)
    assert (found.items, found.all_items) == (3 + 2 + 1, 4 * 3)
    assert found.sampled == 1
    assert trials(tally) == {0}
