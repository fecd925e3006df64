"""Scales, ticks and labels of the drawings."""

from __future__ import annotations

from itertools import pairwise

import pytest

from evomerge.report.figures.drawing import Scale, mark, shortened, spanning, spread, text, tick_label


def test_a_scale_maps_values_to_places_and_back_to_front() -> None:
    scale = Scale(low=0, high=10, start=100, stop=0)
    assert [scale(value) for value in (0, 2.5, 10)] == [100, 75, 0]
    assert Scale(low=3, high=3, start=0, stop=10)(3) == 5


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 1, ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        (0.61, 0.73, ["0.625", "0.65", "0.675", "0.7", "0.725"]),
        (-3, 260, ["0", "100", "200"]),
        (-1, 1, ["−1", "−0.5", "0", "0.5", "1"]),
    ],
)
def test_ticks_are_round_and_inside(low: float, high: float, ticks: list[str]) -> None:
    assert [tick_label(value) for value in Scale(low=low, high=high, start=0, stop=1).ticks()] == ticks


def test_a_scale_spans_what_it_is_given_and_survives_nothing() -> None:
    assert spanning([], 0, 1).high > spanning([], 0, 1).low
    assert spanning([2.0, 2.0], 0, 1).low < 2 < spanning([2.0, 2.0], 0, 1).high
    assert spanning([float("nan"), 1.0, 3.0], 0, 100, room=0)(2) == 50


def test_labels_keep_apart_and_in_their_order() -> None:
    places = spread([50, 51, 10, 52, 99], 14, 0, 100)
    ranked = sorted(places)
    assert all(b - a >= 14 - 1e-9 for a, b in pairwise(ranked))
    assert places[2] < places[0] < places[1] < places[3] < places[4] <= 100


def test_a_label_that_is_too_long_loses_its_middle() -> None:
    short = shortened("weight/a-model-with-a-long-name/L10-20", 150)
    assert short.startswith("weight/a-m")
    assert short.endswith("name/L10-20")
    assert "…" in short
    assert len(shortened("x" * 100, 150)) == 22
    assert shortened("short", 150) == "short"


def test_names_are_only_text_in_a_drawing() -> None:
    hostile = '"><script>x</script>\u202e'
    for drawn in (
        text(0, 0, hostile),
        mark(0, 0, "dot", hostile),
        mark(0, 0, "dot", hostile, shape="square"),
    ):
        assert "<script" not in drawn
        assert "\u202e" not in drawn
        assert "&lt;script&gt;" in drawn
