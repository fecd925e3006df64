"""What the items of a space can show, before a search."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.report.prospects import Prospects, objective_table, prospects, sentences
from evomerge.types import Aggregate, Split
from tests.controller.handmade import measure, record_of

COUNTS: dict[Split, int] = {"search": 100, "select": 300, "report": 600}


def shown(aggregate: Aggregate = "mean", **counts: int) -> Prospects:
    asked = replace(measure(), aggregate=aggregate)
    return prospects(record_of([asked], {**COUNTS, **counts}))  # type: ignore[dict-item]


def test_the_smallest_gain_and_the_items_for_one_are_those_of_the_formula() -> None:
    few, middle, many = shown().objectives[0].shows
    # 2.80² (ψ - Δ²)/Δ² items: with ψ = .1 and Δ = .05, 7.849 × .0975/.0025
    assert (few.needed, middle.needed, many.needed) == (150, 307, 621)
    assert middle.proven == pytest.approx((7.849 * 0.1 / 607.849) ** 0.5, rel=1e-3)
    # 2.123² at one-sided 10 %
    assert middle.told_apart == pytest.approx((4.508 * 0.1 / 304.508) ** 0.5, rel=1e-3)
    assert middle.flatters == pytest.approx(2.75 * (0.1 / 100) ** 0.5, rel=0.01)  # of 200 candidates


def test_scores_that_are_no_shares_are_told_in_standard_deviations() -> None:
    (only,) = shown("bits_per_byte").objectives[0].shows
    assert (only.discordance, only.needed) == (None, None)
    assert only.proven == pytest.approx((7.849 / 607.849) ** 0.5, rel=1e-3)
    assert objective_table(shown("bits_per_byte").objectives[0], 200).row_count == 3


def test_a_metric_of_all_items_at_once_is_said_to_have_no_interval() -> None:
    (objective,) = shown("other").objectives
    assert objective.shows == ()
    assert "no gain in it can be proven" in objective.notes[0]


def test_without_select_items_the_search_items_tell_apart_and_that_is_said() -> None:
    (objective,) = shown(select=0).objectives
    assert objective.shows[1].told_apart == pytest.approx((4.508 * 0.1 / 104.508) ** 0.5, rel=1e-3)
    assert "no select items" in objective.notes[0]
    assert shown().objectives[0].notes == ()


def test_several_items_about_one_text_count_as_one() -> None:
    record = record_of([measure()], COUNTS)
    texts = {item: item[:-1] for items in record.items["t"].values() for item in items}  # ten items a text
    clustered = prospects(replace(record, clusters={"t": texts})).objectives[0]
    assert clustered.sizes["report"] == len({texts[item] for item in record.items["t"]["report"]})
    assert clustered.shows[1].proven > shown().objectives[0].shows[1].proven


def test_few_items_are_noted() -> None:
    assert shown().notes == ()
    assert any("40 report items" in line for line in sentences(shown(report=40)))
