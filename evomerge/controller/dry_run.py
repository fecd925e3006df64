"""One candidate built and asked a few items, to say beforehand that it works and how long a search takes."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

from evomerge.archive.record import RunRecord
from evomerge.controller.stages import Tell
from evomerge.dispatch.job import Job
from evomerge.dispatch.worker import Worker
from evomerge.errors import EvomergeError, WorkError
from evomerge.evaluate.brief import Brief
from evomerge.recipe import Recipe
from evomerge.seeds import derive
from evomerge.space.baselines import baselines
from evomerge.types import Failed, Outcome, Scored

_LOOKS = (4, 12, 28, 60)
"""Ends of the parts in which items are asked: 4 at first, then as many as the time allows."""

_SECONDS = 10.0
"""How long the part that is measured may take, and how long building may have for a second candidate."""

RACED = 1 / 3
"""The share of item evaluations that races took in the searches of docs/log.md (.18 to .35)."""

_FINALISTS = 5


@dataclass(frozen=True, kw_only=True)
class DryRun:
    """What was measured of one candidate, and what follows for a search; all times in seconds.

    `items` search items were asked, all tasks together. `second` tells whether another candidate was built
    before, so that what is done once only is not counted. `whole` is a candidate asked all `all_items`;
    `budget_most` all candidates so, by that many workers at once, `budget_likely` with racing where there is
    any, and `closing` the finalists on select and report items. Memory is the most this process ever had.
    """

    device: str
    items: int
    second: bool
    build: float
    per_item: float
    all_items: int
    whole: float
    workers: int
    raced: bool
    budget_most: float
    budget_likely: float
    closing: float
    peak_memory: int
    peak_gpu_memory: int


@dataclass(frozen=True, kw_only=True)
class _Measured:
    """What one candidate took on so many items."""

    device: str
    build: float
    score: float
    items: int


def dry_run(record: RunRecord, *, workers: int, tell: Tell) -> DryRun:
    """Build and score a candidate or two in this process.

    Raises `WorkError` with the reason if that fails.
    """
    brief = _short(record.brief())
    start, other = _candidates(record)
    tell("Dry run: building a candidate and asking it a few items …")
    with _worker(brief) as worker:
        taken = _measured(worker, brief, start, look=0, identify=record.inherits)
        look = _affordable(taken, brief)
        second = taken.build + taken.score < 6 * _SECONDS
        if second:
            _measured(worker, brief, start, look=look, identify=False)  # reads the items' texts
            try:
                taken = _measured(worker, brief, other, look=look, identify=record.inherits)
            except WorkError:  # a point at random may be no sound model; the start was
                second = False
    return _extrapolated(record, taken, second=second, workers=workers)


def _short(brief: Brief) -> Brief:
    """Return the brief with the first search items only, to be asked in parts that grow."""
    items = {
        task: {**splits, "search": splits["search"][: _LOOKS[-1]]} for task, splits in brief.items.items()
    }
    most = max(len(splits["search"]) for splits in items.values())
    return replace(brief, items=items, looks=tuple(sorted({*(min(end, most) for end in _LOOKS)})))


def _candidates(record: RunRecord) -> tuple[Recipe, Recipe]:
    """Return where the search begins, and another point of the space."""
    genome = record.genome
    rng = random.Random(derive(record.space.seed, "dry run"))  # noqa: S311  # no secret
    point = {gene.name: gene.at(rng.random()) for gene in genome.genes}
    return genome.decode(genome.start), genome.decode(point)


@contextmanager
def _worker(brief: Brief) -> Iterator[Worker]:
    try:
        worker = Worker(brief)
    except EvomergeError as error:
        raise WorkError(f"no evaluator can start: {error}") from error
    try:
        yield worker
    finally:
        worker.close()


def _measured(worker: Worker, brief: Brief, recipe: Recipe, *, look: int, identify: bool) -> _Measured:
    """Build a recipe as a search would and ask it one part of the items."""
    started = time.monotonic()
    if identify:
        _sound(worker.run(Job(trial=0, recipe=recipe, identify=True, screen=False)))
    identified = time.monotonic() - started
    scored = _sound(worker.run(Job(trial=0, recipe=recipe, look=look)))
    assert isinstance(scored, Scored)  # that is what was asked for
    return _Measured(
        device=scored.device,
        build=identified + scored.merge_seconds,
        score=scored.score_seconds,
        items=_asked(brief, look),
    )


def _sound(outcome: Outcome) -> Outcome:
    if isinstance(outcome, Failed):
        raise WorkError(f"a candidate at the start of the search fails: {outcome.reason}")
    return outcome


def _asked(brief: Brief, look: int) -> int:
    """Return how many items are asked in a part, all tasks together."""
    searched = {each.task for each in brief.measures if each.name not in brief.held_out}
    return sum(len(brief.parts(task, "search")[look]) for task in searched)


def _affordable(taken: _Measured, brief: Brief) -> int:
    """Return the largest part that can be asked in the time there is."""
    each = taken.score / max(1, taken.items)
    fitting = [look for look in range(len(brief.looks)) if _asked(brief, look) * each <= _SECONDS]
    return max(fitting, default=0)


def _extrapolated(record: RunRecord, taken: _Measured, *, second: bool, workers: int) -> DryRun:
    per_item = taken.score / max(1, taken.items)
    all_items = record.asked(record.looks[-1])
    raced, first = len(record.looks) > 1, len(baselines(record.genome))
    whole = taken.build + per_item * all_items
    budget = record.space.budget
    sampled = max(0, budget - first)
    likely = taken.build + per_item * all_items * (RACED if raced else 1.0)
    searching = min(first, budget) * whole + sampled * likely
    return DryRun(
        device=taken.device,
        items=taken.items,
        second=second,
        build=taken.build,
        per_item=per_item,
        all_items=all_items,
        whole=whole,
        workers=workers,
        raced=raced,
        budget_most=budget * whole / workers,
        budget_likely=searching / workers,
        closing=_closing(record, taken.build, per_item, first) / workers,
        peak_memory=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
        peak_gpu_memory=_peak_gpu_memory(),
    )


def _closing(record: RunRecord, build: float, per_item: float, first: int) -> float:
    """Return the time that finalists and baselines take on select items, and chosen ones on report items."""
    sizes = {
        split: sum(len(splits[split]) for splits in record.items.values()) for split in ("select", "report")
    }
    last = first + _FINALISTS if sizes["select"] else 0
    chosen = first + len(record.objectives)
    return last * (build + per_item * sizes["select"]) + chosen * (build + per_item * sizes["report"])


def _peak_gpu_memory() -> int:
    import torch

    return torch.cuda.max_memory_reserved() if torch.cuda.is_available() else 0
