"""The closing table and its sentences, of a run made by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.archive.run import Run
from evomerge.controller.closing import close_search
from evomerge.controller.closing_report import ClosingReport
from evomerge.report.closing import closing_of, columns, details, headline, markdown, nothing_found
from evomerge.report.front import chosen_sentences, front_frame
from evomerge.types import Split
from tests.controller.handmade import Answering, MadeByHand, measure, record_of, rights

COUNTS: dict[Split, int] = {"search": 10, "select": 20, "report": 40}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """Return a run whose best by search items, trial 5, is not the one chosen, trial 6."""
    made = MadeByHand(record_of([measure()], COUNTS, held_out=[measure("h")]), tmp_path / "run")
    for right in (4, 4, 4, 4, 4, 9, 8, 3, 2):
        made.add(rights(right, 10))
    select = {n: (rights(8, 20),) for n in range(9)} | {6: (rights(18, 20),)}
    report = {n: (rights(16, 40), rights(20, 40)) for n in range(1, 9)} | {
        6: (rights(36, 40), rights(22, 40))
    }
    close_search(
        made.folder, made.run, made.store.add, Answering(made.record, {"select": select, "report": report})
    )
    return made.run


@pytest.fixture
def report(run: Run) -> ClosingReport:
    return closing_of(run)


def test_report_select_and_search_stand_side_by_side_and_held_out_apart(
    run: Run, report: ClosingReport
) -> None:
    shown = columns(report, run.record)
    assert [column.head for column in shown] == ["t ↑ report", "select", "search", "h ↑ held out"]
    cells = {row.title: [column.cell(row) for column in shown] for row in report.rows}
    assert cells["best t"] == ["0.900", "0.900", "0.800", "0.550"]
    assert cells["parent math"] == ["0.400", "0.400", "0.400", "0.500"]
    assert cells["base"] == ["failed", "0.400", "0.400", "failed"]
    assert cells["finalist"] == ["–", "0.400", "0.900", "–"]


def test_columns_without_any_score_are_left_out(run: Run, report: ClosingReport) -> None:
    bare = replace(report, rows=tuple(replace(row, select=None) for row in report.rows))
    assert [column.head for column in columns(bare, run.record)] == ["t ↑ report", "search", "h ↑ held out"]


def test_the_gains_come_first_and_those_held_out_say_so(report: ClosingReport) -> None:
    gained, held_out = headline(report)
    assert gained.startswith(
        "t: trial 6 against the parent math (best parent and best baseline): +0.500 [+0.3"
    )
    assert held_out.startswith(
        "held out: h: trial 6 against the parent math (best parent and best baseline): +0.050"
    )
    assert held_out.endswith(" on 40 report items, not proven")


def test_the_rest_says_how_it_was_chosen_and_how_it_was_flattered(run: Run, report: ClosingReport) -> None:
    said = list(details(report, run.record))
    assert said[0] == "items: t 10 search, 20 select, 40 report; h 40 report"
    assert "t: 1 of 4 finalists are better than the best parent on select items at the 5 % level" in said[1]
    assert any(each.startswith("t: of trial 6's 0.800 on search items 0.") for each in said)
    assert said[-1].startswith("t: were all 4 candidates equally good, the best would still look 0.")


def test_search_scores_that_chose_are_said_to_flatter(run: Run, report: ClosingReport) -> None:
    bare = replace(report, rows=tuple(replace(row, select=None) for row in report.rows))
    assert "t: without select items, search scores chose, which flatter the luckiest" in details(
        bare, run.record
    )
    assert not any("flatter" in each for each in details(report, run.record))


def test_markdown_holds_table_and_sentences(run: Run, report: ClosingReport) -> None:
    lines = markdown(report, run.record).splitlines()
    assert lines[0] == "| model | trial | t ↑ report | select | search | h ↑ held out |"
    assert "| **best t** | 6 | 0.900 | 0.900 | 0.800 | 0.550 |" in lines
    assert {line.count("|") for line in lines if line.startswith("|")} == {7}
    assert sum(line.startswith("- ") for line in lines) == len(
        [*headline(report), *details(report, run.record)]
    )


def test_what_nothing_meets_is_named(report: ClosingReport) -> None:
    assert nothing_found(report) is None
    none = replace(report, feasible=False, unmet=("t ≥ 2 (nearest 0.900)",))
    assert (
        nothing_found(none)
        == "no candidate meets t ≥ 2 (nearest 0.900); so the front is empty, and there is nothing to export"
    )


def test_the_front_has_select_and_report_scores_and_names_who_is_not_on_it(run: Run) -> None:
    frame = front_frame(run)
    (row,) = frame.to_dict("records")
    assert (row["trial"], row["t"], row["t_select"], row["chosen"]) == (5, 0.9, 0.4, "")
    assert row["t_report"] is None or row["t_report"] != row["t_report"]
    assert list(chosen_sentences(run, frame)) == ["t: trial 6 was chosen by its select items"]
