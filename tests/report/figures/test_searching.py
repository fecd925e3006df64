"""What the figures of a search draw: the best so far, the front's line, importance against chance."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from evomerge.archive.run import Run
from evomerge.report.figures.curve import curves
from evomerge.report.figures.importance import importances
from evomerge.report.figures.parallel import parallel
from evomerge.report.figures.pareto import fronts
from evomerge.types import Scored
from tests.controller.handmade import MadeByHand, measure, record_of, rights
from tests.report.conftest import COUNTS

POINTS = re.compile(r'<polyline points="([^"]*)" class="line (\w+)"')


def line_of(svg: object, kind: str) -> list[tuple[float, float]]:
    """Return the places a line goes through."""
    (found,) = [points for points, drawn in POINTS.findall(str(svg)) if drawn == kind]
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in found.split())]


def scored_run(folder: Path, rows: Sequence[tuple[float, ...]], *, infeasible: tuple[int, ...] = ()) -> Run:
    """Return a run whose trials, baselines first, have these scores."""
    up = (True, False, True, True)
    measures = [measure(name, up=up[k]) for k, name in enumerate("tuvw"[: len(rows[0])])]
    made = MadeByHand(record_of(measures, COUNTS), folder)
    for number, scores in enumerate(rows):
        asked = made.study.ask()
        scored = Scored(
            scores=dict(zip("tuvw", scores, strict=False)),
            items=(),
            merge_seconds=1,
            score_seconds=2,
            device="cpu",
        )
        made.study.tell_scored(asked.number, scored, {"limit": 1.0} if number in infeasible else {})
    return made.run


def test_the_best_so_far_takes_steps_up_and_passes_over_what_misses_a_constraint(tmp_path: Path) -> None:
    scores = [0.3, 0.2, 0.4, 0.2, 0.2, 0.9, 0.5, 0.45, 0.6]
    (figure,) = curves(scored_run(tmp_path / "run", [(each,) for each in scores], infeasible=(5,)))
    heights = [y for _, y in line_of(figure.svg, "best")]
    assert sorted(heights, reverse=True) == heights
    assert len(set(heights)) == 4  # 0.3, 0.4, 0.5, 0.6
    assert "trial 5: t 0.900 (misses a constraint)" in str(figure.svg)
    assert "task arithmetic 0.200" in str(figure.svg)


def test_where_less_is_better_the_best_so_far_falls(tmp_path: Path) -> None:
    rows = [(0.5, score) for score in (0.9, 0.8, 0.85, 0.6, 0.7)]
    _, figure = curves(scored_run(tmp_path / "run", rows))
    heights = [y for _, y in line_of(figure.svg, "best")]
    assert sorted(heights) == heights
    assert "lower is better" in str(figure.svg)


def test_the_front_is_a_line_of_steps_around_what_it_dominates(tmp_path: Path) -> None:
    rows = [(0.1, 0.9), (0.2, 0.8), (0.3, 0.7), (0.4, 0.6), (0.5, 0.5), (0.9, 0.4), (0.7, 0.2), (0.6, 0.9)]
    (figure,) = fronts(scored_run(tmp_path / "run", rows), None)
    points = line_of(figure.svg, "front")
    assert all(a[0] == b[0] or a[1] == b[1] for a, b in pairwise(points))
    assert len(points) == 5  # an edge, two members with a corner between, an edge
    for label in ("base", "parent math", "task arithmetic"):
        assert f">{label}</text>" in str(figure.svg)


@pytest.mark.parametrize(("objectives", "drawn"), [(1, 0), (2, 1), (3, 3), (4, 6)])
def test_there_is_a_plot_for_each_pair_of_objectives(tmp_path: Path, objectives: int, drawn: int) -> None:
    rng = random.Random(0)
    rows = [tuple(rng.random() for _ in range(objectives)) for _ in range(12)]
    figures = [
        each for each in fronts(scored_run(tmp_path / "run", rows), None) if "from near" not in each.title
    ]
    assert len(figures) == drawn


@pytest.fixture(scope="module")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return a run in which one gene decides the score in `t`, and nothing that in `u`.

    In `v` that gene makes the best, and another one the worst.
    """
    folder = tmp_path_factory.mktemp("runs") / "run"
    made = MadeByHand(record_of([measure("t"), measure("u"), measure("v")], COUNTS), folder)
    rng = random.Random(3)
    for _ in range(85):
        asked = made.study.ask()
        gene = float(asked.params["weight/math/L0-3"])
        other = float(asked.params["weight/lang/L0-3"])
        scores = {"t": gene + 0.01 * rng.random(), "u": rng.random(), "v": gene if gene > 1.2 else -other}
        scored = Scored(scores=scores, items=(), merge_seconds=0, score_seconds=0, device="cpu")
        made.study.tell_scored(asked.number, scored, {})
    return made.run


def test_a_gene_that_decides_is_beyond_chance_and_others_are_not(steered: Run) -> None:
    decided, random_, best = importances(steered)
    assert next(iter(decided.shares)) == "weight/math/L0-3"
    assert [name for name, share in decided.shares.items() if share > decided.chance] == ["weight/math/L0-3"]
    assert max(random_.shares.values()) < random_.chance
    assert sum(decided.shares.values()) == pytest.approx(1)
    assert decided.candidates == 80  # without the baselines
    assert next(iter(best.shares)) == "weight/math/L0-3"


def test_importance_of_few_candidates_is_not_told(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    for number in range(54):
        made.add(rights(number % 19, 20))
    assert importances(made.run) == []


def test_the_lines_of_candidates_are_few_with_the_chosen_on_top(steered: Run) -> None:
    worst = min(range(5, 85), key=lambda n: steered.scores(n)["t"])
    figure = parallel(steered, [], [worst])
    assert figure is not None
    kinds = re.findall(r'class="strand (\w+)"', str(figure.svg))
    assert len(kinds) == 80
    assert kinds[-1] == "chosen"
    assert kinds.count("top") == 8
    assert kinds == sorted(kinds, key=("candidate", "top", "chosen").index)


def test_a_mark_far_off_lies_at_the_edge_and_the_caption_says_so(tmp_path: Path) -> None:
    rows = [(0.5, 9.0)] + [(0.5, 0.5 + 0.01 * k) for k in range(12)]
    _, figure = curves(scored_run(tmp_path / "run", rows))
    assert "One point far off the scale is at its edge." in figure.caption
    assert "trial 0: u 9.000" in str(figure.svg)
