"""Scored part by part, a candidate has the scores that it has at once."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest

from evomerge.comparison.items import aggregate
from evomerge.controller.setup import resolve
from evomerge.evaluate.evaluator import Evaluator
from evomerge.evaluate.looks import extended, look_ends, parts, scores_of
from evomerge.space import read_space
from evomerge.space.baselines import baselines
from evomerge.types import Aggregate, ItemScores, Measure, Scored
from tests.controller.conftest import SPACE

N = 317
THREE = SPACE.replace(
    "  - {task: math_b, metric: acc}\n",
    "  - {task: math_b, metric: acc}\n  - {task: stories_b, metric: bits_per_byte}\n"
    "constraints: [{task: word_b, metric: perplexity, max: 1000.0}]\n",
).replace("sampler: cma", "sampler: nsgaii")


@pytest.mark.parametrize(
    ("wanted", "counts", "ends"),
    [
        ([25, 50, 100], [400], (25, 50, 100, 400)),
        ([100, 25, 25], [400], (25, 100, 400)),
        ([25, 50, 100], [25], (25,)),
        ([25, 50, 100], [10], (10,)),
        ([1000], [400], (400,)),
        ([], [400, 30], (400,)),
        ([25, 50, 100], [30, 60], (25, 50, 60)),
    ],
)
def test_looks_end_with_all_items_of_the_largest_task(
    wanted: list[int], counts: list[int], ends: tuple[int, ...]
) -> None:
    assert look_ends(wanted, counts) == ends


@pytest.mark.parametrize("count", [1, 24, 25, 26, 60, 400])
def test_parts_hold_every_item_once_and_in_order(count: int) -> None:
    """Also of a task with fewer items than others, which has nothing left to ask in the later ones."""
    ends = (25, 50, 100, 400)
    found = list(parts(ends, count))
    assert len(found) == len(ends)
    assert [item for start, stop in found for item in range(start, stop)] == list(range(count))
    assert all(before[1] == after[0] for before, after in pairwise(found))
    assert [stop for _, stop in found] == [min(end, count) for end in ends]


def measure(kind: Aggregate, *, name: str = "t", higher: bool = False) -> Measure:
    return Measure(name=name, task=name, metric=kind, filter="none", higher_is_better=higher, aggregate=kind)


def scores_on(measures: list[Measure], start: int, stop: int) -> Scored:
    """Return what a model scores on some of the items, whose scores hang on nothing else."""
    found = [
        ItemScores(
            task=each.task,
            metric=each.metric,
            filter=each.filter,
            items=tuple(f"{each.task}-{i}" for i in range(start, stop)),
            scores=tuple(_score(each, i) for i in range(start, stop)),
            weights=None if each.aggregate == "mean" else tuple(1.0 + i % 7 for i in range(start, stop)),
        )
        for each in measures
    ]
    return Scored(
        scores={each.name: aggregate(each, items) for each, items in zip(measures, found, strict=True)},
        items=tuple(found),
        merge_seconds=1.0,
        score_seconds=2.0,
        device="cpu",
    )


def _score(measure: Measure, item: int) -> float:
    rng = random.Random(item)
    return float(rng.random() < 0.3) if measure.aggregate == "mean" else rng.gauss(-20, 5)


def test_accuracies_of_parts_are_the_accuracy_of_the_whole_to_the_last_digit() -> None:
    asked = [measure("mean", higher=True)]
    whole, so_far = scores_on(asked, 0, N), None
    for start, stop in parts((25, 50, 100, N), N):
        so_far = extended(so_far, scores_on(asked, start, stop), asked)
    assert so_far is not None
    assert so_far.items == whole.items
    assert so_far.scores == whole.scores
    assert (so_far.merge_seconds, so_far.score_seconds, so_far.device) == (4.0, 8.0, "cpu")


@pytest.mark.parametrize("kind", ["perplexity", "weighted_perplexity", "bits_per_byte"])
def test_perplexities_of_parts_are_the_perplexity_of_the_whole(kind: Aggregate) -> None:
    asked = [measure(kind)]
    whole, so_far = scores_on(asked, 0, N), None
    for start, stop in parts((25, 50, 100, N), N):
        so_far = extended(so_far, scores_on(asked, start, stop), asked)
    assert so_far is not None
    assert so_far.items == whole.items
    assert so_far.scores["t"] == pytest.approx(whole.scores["t"], rel=1e-12)


def test_a_measure_that_is_not_asked_any_more_keeps_its_score() -> None:
    small, large = measure("mean", name="small", higher=True), measure("mean", name="large", higher=True)
    first, second = scores_on([small, large], 0, 25), scores_on([large], 25, 50)
    both = extended(first, second, [small, large])
    assert both.scores == {"small": first.scores["small"], "large": scores_on([large], 0, 50).scores["large"]}
    assert scores_of(both, small) == scores_of(first, small)
    assert len(scores_of(both, large).items) == 50


def test_a_score_of_one_part_is_lm_evals_own() -> None:
    """Ours may differ from it in the last digit, and what is asked at once should be as lm-eval has it."""
    own = replace(scores_on([measure("bits_per_byte")], 0, 25), scores={"t": 1.25})
    assert extended(None, own, [measure("bits_per_byte")]) is own


def test_two_measures_of_one_task_are_kept_apart() -> None:
    one, other = measure("mean", name="t", higher=True), replace(measure("mean"), name="u", metric="norm")
    asked = [one, other]
    both = extended(scores_on(asked, 0, 9), scores_on(asked, 9, 30), asked)
    assert scores_of(both, one).metric == "mean"
    assert scores_of(both, other).metric == "norm"
    assert both.scores == scores_on(asked, 0, 30).scores


def test_an_evaluator_scores_the_same_look_by_look_and_at_once(tmp_path: Path) -> None:
    """Of three tasks: multiple choice, rolling texts, last words; one has fewer items than looks ask for."""
    file = tmp_path / "space.yaml"
    file.write_text(THREE + "racing: {looks: [10, 25]}\n")
    record = resolve(read_space(file))
    assert record.looks == (10, 25, 40)
    record = replace(record, items={**record.items, "word_b": _shorter(record.items["word_b"], 17)})
    recipe, other = (each.recipe for each in baselines(record.genome)[1:3])
    by_look, at_once = Evaluator(record.brief()), Evaluator(record.brief())
    so_far: Scored | None = None
    sizes, merges = [], []
    for look in range(3):
        found = by_look.evaluate(recipe, "search", look)
        assert isinstance(found, Scored)
        sizes.append({each.task: len(each.items) for each in found.items})
        merges.append(found.merge_seconds)
        so_far = extended(so_far, found, record.measures)
    whole = at_once.evaluate(recipe)
    assert isinstance(whole, Scored)
    assert so_far is not None
    assert sizes == [
        {"math_b": 10, "stories_b": 10, "word_b": 10},
        {"math_b": 15, "stories_b": 15, "word_b": 7},
        {"math_b": 15, "stories_b": 15},
    ]
    assert merges[0] > 0
    assert merges[1:] == [0.0, 0.0]  # it was there already
    assert so_far.items == whole.items
    assert so_far.scores == whole.scores
    for each in record.measures:
        assert math.isclose(aggregate(each, scores_of(whole, each)), whole.scores[each.name], rel_tol=1e-12)
    assert isinstance(by_look.evaluate(other, "search", 0), Scored)
    again = by_look.evaluate(recipe, "search", 1)  # another model came between
    assert isinstance(again, Scored)
    assert again.merge_seconds > 0
    assert [each.scores for each in again.items] == [each.scores[10:25] for each in whole.items]
    by_look.close()
    at_once.close()


def _shorter(splits: object, count: int) -> dict[str, list[str]]:
    assert isinstance(splits, dict)
    return {**splits, "search": splits["search"][:count]}
