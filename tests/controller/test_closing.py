"""The end of a search, made by hand: who comes into the last round, who is chosen, and what is told of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest

from evomerge.controller.closing import close_search
from evomerge.controller.closing_report import ClosingReport, Gain, from_json
from evomerge.errors import RunError
from evomerge.report.closing import closing_of
from evomerge.types import Split
from tests.controller.handmade import LABELS, Answering, Answers, MadeByHand, measure, record_of, rights

COUNTS: dict[Split, int] = {"search": 10, "select": 20, "report": 40}
BASE, MATH, LANG, AVERAGE, ARITHMETIC = range(5)


def alike(trials: Sequence[int], count: int, of: int) -> dict[int, tuple[Answers]]:
    return {trial: (rights(count, of),) for trial in trials}


@pytest.fixture
def made(tmp_path: Path) -> MadeByHand:
    """Return a run for one objective: five baselines with 4 of 10 right, then trials 5 to 8 with more."""
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    for right in (4, 4, 4, 4, 4, 9, 8, 7, 7):
        made.add(rights(right, 10))
    return made


def closed(made: MadeByHand, dispatcher: Answering) -> ClosingReport:
    return close_search(made.folder, made.run, made.store.add, dispatcher)


def answering(made: MadeByHand) -> Answering:
    """Trial 6 is the best on select items, though trial 5 was on search items."""
    return Answering(
        made.record,
        {
            "select": {
                **alike(range(5), 8, 20),
                5: (rights(8, 20),),
                **alike([6], 18, 20),
                **alike([7, 8], 7, 20),
            },
            "report": {**alike(range(5), 16, 40), MATH: (rights(20, 40),), 6: (rights(36, 40),)},
        },
    )


def test_select_items_choose_and_report_items_are_asked_once(made: MadeByHand) -> None:
    dispatcher = answering(made)
    report = closed(made, dispatcher)
    assert report.chosen == {"t": 6}
    assert report.knee is None
    assert [trial for split, trial in dispatcher.asked if split == "select"] == [0, 1, 2, 3, 4, 5, 6, 7, 8]
    assert [trial for split, trial in dispatcher.asked if split == "report"] == [0, 1, 2, 3, 4, 6]
    rows = {row.trial: row for row in report.rows}
    assert [row.label for row in report.rows] == [*LABELS, *["candidate"] * 4]
    assert (rows[6].search, rows[6].select, rows[6].report) == ({"t": 0.8}, {"t": 0.9}, {"t": 0.9})
    assert (rows[6].title, rows[5].title, rows[MATH].title) == ("best t", "finalist", "parent math")
    assert rows[5].report is None
    assert rows[5].failed == ()


def test_the_gain_is_over_the_toughest_parent_and_baseline_on_report_items(made: MadeByHand) -> None:
    (gain,) = closed(made, answering(made)).gains
    assert (gain.rival, gain.over, gain.as_best) == (MATH, "parent math", ("parent", "baseline"))
    # 16 of 40 items differ, all for the better: mean .4, variance 40/39 (.4 - .16)
    half = 2.0226909117347285 * (40 / 39 * 0.24 / 40) ** 0.5  # Student's t with 39 degrees of freedom
    assert gain.gain == pytest.approx(0.4)
    assert gain.low == pytest.approx(0.4 - half)
    assert gain.high == pytest.approx(0.4 + half)
    assert (gain.items, gain.verdict) == (40, "better")
    assert gain.p is not None
    assert gain.p < 1e-4


def test_a_rival_that_is_no_parent_counts_apart(made: MadeByHand) -> None:
    dispatcher = Answering(
        made.record,
        {
            "select": {**alike(range(9), 8, 20), **alike([6], 18, 20)},
            "report": {**alike(range(5), 16, 40), AVERAGE: (rights(30, 40),), 6: (rights(30, 40),)},
        },
    )
    parent, baseline = closed(made, dispatcher).gains
    assert (parent.rival, parent.as_best, parent.verdict) == (BASE, ("parent",), "better")
    assert (baseline.rival, baseline.as_best, baseline.verdict) == (AVERAGE, ("baseline",), "not proven")


def test_four_items_that_all_agree_prove_nothing_though_zero_is_outside(made: MadeByHand) -> None:
    """Of forty: t has it at .002 to .198, but four coins fall the same way once in sixteen times."""
    dispatcher = answering(made)
    dispatcher.answers["report"] = alike(range(5), 16, 40) | alike([6], 20, 40)
    (gain,) = closed(made, dispatcher).gains
    assert gain.low is not None
    assert gain.low > 0
    assert (gain.p, gain.verdict) == (1 / 32, "not proven")


def test_the_lowest_is_chosen_where_lower_is_better(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure(up=False)], COUNTS), tmp_path / "run")
    for wrong in (6, 6, 6, 6, 6, 1, 2):
        made.add(rights(wrong, 10))
    answers = {n: (rights(12, 20),) for n in range(7)} | {6: (rights(2, 20),)}
    report_answers = {n: (rights(24, 40),) for n in range(7)} | {2: (rights(20, 40),), 6: (rights(4, 40),)}
    report = closed(made, Answering(made.record, {"select": answers, "report": report_answers}))
    assert report.chosen == {"t": 6}
    assert [(gain.rival, gain.verdict) for gain in report.gains] == [(LANG, "better")]
    assert report.gains[0].gain == pytest.approx(0.4)


def test_a_parent_that_is_chosen_is_told_so(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    for right in (4, 9, 4, 4, 4, 6):
        made.add(rights(right, 10))
    dispatcher = Answering(
        made.record,
        {"select": {**alike(range(6), 8, 20), MATH: (rights(18, 20),)}, "report": alike(range(5), 16, 40)},
    )
    (gain,) = closed(made, dispatcher).gains
    assert (gain.trial, gain.rival, gain.verdict) == (MATH, MATH, "itself")
    assert gain.sentence == "t: the parent math was chosen over every candidate"


def test_an_average_that_is_chosen_is_compared_with_parents_only(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    for right in (4, 4, 4, 9, 4, 6):
        made.add(rights(right, 10))
    dispatcher = Answering(
        made.record,
        {
            "select": {**alike(range(6), 8, 20), AVERAGE: (rights(18, 20),)},
            "report": {**alike(range(5), 16, 40), ARITHMETIC: (rights(40, 40),)},
        },
    )
    itself, parent = closed(made, dispatcher).gains
    assert (itself.verdict, itself.as_best) == ("itself", ("baseline",))
    assert (parent.rival, parent.as_best) == (BASE, ("parent",))


def test_without_select_items_search_scores_choose(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], {**COUNTS, "select": 0}), tmp_path / "run")
    for right in (4, 4, 4, 4, 4, 9, 8):
        made.add(rights(right, 10))
    dispatcher = Answering(made.record, {"report": alike(range(7), 16, 40)})
    report = closed(made, dispatcher)
    assert report.chosen == {"t": 5}
    assert report.decided_on("t") == "search"
    assert all(row.select is None for row in report.rows)


def test_a_finalist_that_fails_on_select_items_is_passed_over(made: MadeByHand) -> None:
    answers: dict[Split, dict[int, tuple[Answers]]]
    answers = {"select": alike([*range(5), 5, 7, 8], 8, 20), "report": alike([*range(1, 6)], 16, 40)}
    report = closed(made, Answering(made.record, answers))
    rows = {row.trial: row for row in report.rows}
    assert report.chosen == {"t": 5}
    assert rows[6].failed == ("select",)
    assert (rows[BASE].failed, rows[BASE].report) == (("report",), None)


def test_held_out_measures_are_told_apart(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS, held_out=[measure("h")]), tmp_path / "run")
    for right in (4, 4, 4, 4, 4, 9):
        made.add(rights(right, 10))
    report_answers = {n: (rights(16, 40), rights(30, 40)) for n in range(5)} | {
        5: (rights(30, 40), rights(10, 40))
    }
    dispatcher = Answering(
        made.record, {"select": alike(range(6), 8, 20) | alike([5], 18, 20), "report": report_answers}
    )
    report = closed(made, dispatcher)
    assert [(gain.measure, gain.verdict) for gain in report.gains] == [("t", "better")]
    assert [(gain.measure, gain.trial, gain.verdict) for gain in report.held_out] == [("h", 5, "worse")]
    assert set(report.rows[0].report or ()) == {"t", "h"}
    assert set(report.rows[0].select or ()) == {"t"}


def test_p_values_of_finalists_are_adjusted_for_how_many_they_are(made: MadeByHand) -> None:
    report = closed(made, answering(made))
    found = {(each.trial, each.as_best): each for each in report.finalists}
    assert {trial for trial, _ in found} == {5, 6, 7, 8}  # and base, which all of them are compared with
    assert found[6, "parent"].gain == pytest.approx(0.5)
    # ten of twenty items won: t = .5/.1147 with 19 degrees of freedom, whose tail is 1.69e-4
    assert found[6, "parent"].p == pytest.approx(4 * 1.69e-4, rel=0.01)
    assert found[5, "parent"].p == 1


def test_the_report_is_read_back_as_it_was_written(made: MadeByHand) -> None:
    report = closed(made, answering(made))
    assert from_json(json.loads(made.folder.report.read_text())) == report


def test_the_run_then_names_the_chosen_as_its_best_until_the_search_goes_on(made: MadeByHand) -> None:
    assert made.run.best() == 5
    with pytest.raises(
        RunError, match=r"has not ended, so nothing was scored on report items yet; continue it"
    ):
        closing_of(made.run)
    report = closed(made, answering(made))
    assert made.run.best("t") == made.run.knee() == 6
    assert closing_of(made.run) == report
    made.add(rights(5, 10))
    assert made.run.best() == 5
    with pytest.raises(RunError, match=r"gone on since .*: it was made of 9 trials, and 10 are finished"):
        closing_of(made.run)


def test_a_run_closed_twice_is_told_the_same_and_asks_nobody_again(made: MadeByHand) -> None:
    again = answering(made)
    assert closed(made, answering(made)) == closed(made, again)
    assert again.asked == []


def test_what_was_recorded_of_a_round_before_a_crash_is_not_asked_again(made: MadeByHand) -> None:
    """One line of two that a killed process left whole is not all of a trial's items."""
    closed(made, answering(made))
    lines = made.folder.items.read_text().splitlines(keepends=True)
    kept = [line for line in lines if '"report"' not in line and '"trial":7,"split":"select"' not in line]
    short = json.loads(next(line for line in lines if '"trial":8,"split":"select"' in line))
    short["scores"] = short["scores"][:10]
    made.folder.items.write_text("".join([*kept, json.dumps(short, separators=(",", ":")) + "\n"]))
    again = answering(made)
    closed(made, again)
    assert sorted(again.asked) == [*(("report", n) for n in (0, 1, 2, 3, 4, 6)), ("select", 7), ("select", 8)]


def test_without_a_feasible_trial_only_baselines_are_reported(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    for right in (4, 4, 4, 4, 4, 9):
        made.add(rights(right, 10), feasible=False)
    dispatcher = Answering(made.record, {"report": alike(range(5), 16, 40)})
    report = closed(made, dispatcher)
    assert (report.feasible, report.chosen, report.gains) == (False, {}, ())
    assert [row.trial for row in report.rows] == list(range(5))


def test_of_two_objectives_each_is_chosen_for_and_a_knee(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure("a"), measure("b")], COUNTS), tmp_path / "run")
    for left, right in [(1, 1)] * 5 + [(9, 2), (2, 9), (6, 7), (7, 6)]:
        made.add(rights(left, 10), rights(right, 10))
    select = {n: (rights(2, 20), rights(2, 20)) for n in range(5)} | {
        5: (rights(18, 20), rights(3, 20)),
        6: (rights(4, 20), rights(18, 20)),
        7: (rights(11, 20), rights(11, 20)),
        8: (rights(14, 20), rights(13, 20)),
    }
    report_answers = {n: (rights(8, 40), rights(8, 40)) for n in range(9)}
    report = closed(made, Answering(made.record, {"select": select, "report": report_answers}))
    assert (report.chosen, report.knee) == ({"a": 5, "b": 6}, 8)
    assert {row.trial: row.title for row in report.rows if row.chosen} == {
        5: "best a",
        6: "best b",
        8: "knee",
    }
    assert [row.trial for row in report.rows if row.report] == [0, 1, 2, 3, 4, 5, 6, 8]
    assert (made.run.best("b"), made.run.knee()) == (6, 8)


def gain(**changed: object) -> Gain:
    usual = {
        "measure": "acc", "trial": 7, "rival": 1, "over": "parent math", "as_best": ("parent",), "gain": 0.1,
        "low": -0.05, "high": 0.25, "p": 0.1, "items": 40, "verdict": "not proven",
    }  # fmt: skip
    return Gain(**{**usual, **changed})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "ending"),
    [
        ({}, "+0.100 [-0.050, +0.250] on 40 report items, not proven"),
        ({"low": 0.05, "verdict": "better"}, "+0.100 [+0.050, +0.250] on 40 report items"),
        (
            {"gain": -0.2, "low": -0.3, "high": -0.1, "verdict": "worse"},
            "[-0.300, -0.100] on 40 report items, worse",
        ),
        (
            {"low": 0.01, "p": 0.031},
            "not proven: so few items differ that the exact test decides (p 0.031 of 0.025)",
        ),
        (
            {"low": None, "high": None, "verdict": "not known"},
            "+0.100 on 40 report items, which allow no interval",
        ),
    ],
)
def test_the_sentence_says_how_much_over_whom_and_how_sure(changed: dict[str, object], ending: str) -> None:
    sentence = gain(**changed).sentence
    assert sentence.startswith("acc: trial 7 against the parent math (best parent): ")
    assert sentence.endswith(ending)
