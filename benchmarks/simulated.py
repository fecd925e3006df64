"""Whole searches whose evaluator is simulated: what racing saves and costs, over many seeds in little time.

Everything but the model is the product's own: space, sampler, loop, race, study. An item is passed where
its margin is positive; margins are smooth in the genes and differ from item to item in where they are best,
so that candidates which are close to one another pass the same items, as merges of the same models do. They
are harder to tell apart than those of the zoo: regret is measured on 4000 fresh items.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import optuna
import yaml
from numpy.typing import NDArray

from evomerge.archive.folder import RunFolder
from evomerge.archive.record import RunRecord
from evomerge.archive.study import StudyRecord
from evomerge.archive.trials import LABEL
from evomerge.controller.live import LiveRun
from evomerge.controller.loop import run_loop
from evomerge.controller.sampling import SamplerContext, make_sampler
from evomerge.controller.setup import resolve
from evomerge.controller.tally import Snapshot
from evomerge.dispatch.job import Job
from evomerge.space import read_space
from evomerge.types import ItemScores, Outcome, Scored

QUICKSTART = Path(__file__).parent.parent / "search_spaces" / "quickstart.yaml"
FRESH = 4000
WAVES = 16

Vector = NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Items:
    """How items answer to a point x of the unit cube, by a margin: passed where it is positive.

    margin(x) = ease + pull·(x - peak) + ripple(x) - |stretch (x - peak)|², with a ripple of random waves.
    """

    ease: Vector  # (N,)
    pull: Vector  # (N, d)
    waves: Vector  # (N, k) heights
    phases: Vector  # (N, k)
    frequencies: Vector  # (k, d)
    peak: Vector  # (d,)
    stretch: Vector  # (d,)

    def passed(self, x: Vector) -> Vector:
        """Return the scores `(N,)` at `x` (d,), 0 or 1."""
        away = x - self.peak
        ripple = (self.waves * np.cos(self.frequencies @ x + self.phases)).sum(axis=1)
        margins = self.ease + self.pull @ away + ripple - ((self.stretch * away) ** 2).sum()
        return np.asarray(margins > 0, dtype=np.float64)

    def some(self, start: int, stop: int) -> Items:
        """Return some of the items."""
        part = slice(start, stop)
        return replace(
            self, ease=self.ease[part], pull=self.pull[part], waves=self.waves[part], phases=self.phases[part]
        )


def make_items(count: int, genes: int, *, seed: int) -> Items:
    """Return items of which about three in four are passed at the peak."""
    rng = np.random.default_rng(seed)
    ease = rng.normal(0.0, 1.0, count)
    return Items(
        ease=ease - np.quantile(ease, 0.25),
        pull=rng.normal(0.0, 1.0, (count, genes)),
        waves=rng.normal(0.0, 0.7 / np.sqrt(WAVES / 2), (count, WAVES)),
        phases=rng.uniform(0, 2 * np.pi, (count, WAVES)),
        frequencies=rng.normal(0.0, 4 * np.pi, (WAVES, genes)) * np.sqrt(3 / genes),
        peak=rng.uniform(0.3, 0.7, genes),
        stretch=np.sqrt(np.geomspace(0.6, 6.0, genes)),
    )


class SimulatedDispatcher:
    """Answers for the items at once; baselines lie in corners, task arithmetic on the way to the peak."""

    capacity = 1

    def __init__(self, record: RunRecord, study: StudyRecord, items: Items) -> None:
        self._record, self._study, self._items = record, study, items
        self._brief = record.brief()
        self._waiting: list[Job] = []
        self.scored = 0

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def collect(self) -> list[tuple[Job, Outcome]]:
        job = self._waiting.pop(0)
        return [(job, self._answer(job))]

    def withdraw(self) -> list[Job]:
        taken, self._waiting = self._waiting, []
        return taken

    def close(self) -> None:
        self._waiting.clear()

    def _answer(self, job: Job) -> Scored:
        measure = self._record.objectives[0]
        parts = self._brief.parts(measure.task, job.split)
        start = 0 if job.look is None else sum(len(part) for part in parts[: job.look])
        order = [item for part in (parts if job.look is None else [parts[job.look]]) for item in part]
        passed = self._items.passed(self.point(job.trial))[start : start + len(order)]
        self.scored += len(order)
        items = ItemScores(
            task=measure.task,
            metric=measure.metric,
            filter=measure.filter,
            items=tuple(order),
            scores=tuple(map(float, passed)),
        )
        scores = {measure.name: float(passed.mean())}
        return Scored(scores=scores, items=(items,), merge_seconds=0.0, score_seconds=0.0, device="none")

    def point(self, trial: int) -> Vector:
        """Return where a trial lies in the unit cube `(d,)`."""
        frozen = self._study.trials()[trial]
        if LABEL in frozen.user_attrs:
            corner = np.random.default_rng(trial).choice([0.1, 0.9], len(self._items.peak))
            share = 0.55 if "task arithmetic" in frozen.user_attrs[LABEL] else 0.0
            return np.asarray(corner + share * (self._items.peak - corner))
        genes = self._record.genome.genes
        return np.asarray([(float(frozen.params[g.name]) - g.low) / (g.high - g.low) for g in genes])


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search scored, as a share of all items, and what its best is worth on fresh ones."""

    share: float
    dropped: int
    best: float
    worth: float


def simulate(record: RunRecord, *, seed: int, budget: int, folder: Path) -> Found:
    """Search once, on items of a seed of its own."""
    record = replace(record, space=record.space.model_copy(update={"seed": seed}))
    objective = record.objectives[0]
    count = len(record.items[objective.task]["search"])
    items = make_items(count + FRESH, len(record.genome.genes), seed=seed)
    study = StudyRecord(
        optuna.storages.InMemoryStorage(),
        record.study,
        objectives=record.objectives,
        genes=record.genome.genes,
        sampler=None,
    )
    choice = record.space.sampler_choice
    study.study.sampler = make_sampler(
        choice.name,
        SamplerContext(
            genes=record.genome.genes,
            objectives=record.objectives,
            seed=seed,
            workers=1,
            trials_before=0,
            options=choice.options,
        ),
    )
    folder.mkdir()
    dispatcher = SimulatedDispatcher(record, study, items.some(0, count))
    run_loop(LiveRun(RunFolder(folder), record, study, budget=budget), dispatcher, _look_away)
    trials = study.trials()
    scored = [trial for trial in trials if trial.values]
    best = max(scored, key=lambda trial: trial.values[0])
    worth = items.some(count, count + FRESH).passed(dispatcher.point(best.number)).mean()
    return Found(
        share=dispatcher.scored / (count * len(trials)),
        dropped=len(trials) - len(scored),
        best=best.values[0],
        worth=float(worth),
    )


def _look_away(snapshot: Snapshot) -> None:
    del snapshot


def searches(record: RunRecord, *, seeds: int, budget: int) -> list[Found]:
    """Search under each seed."""
    with tempfile.TemporaryDirectory() as temporary:
        return [
            simulate(record, seed=seed, budget=budget, folder=Path(temporary) / str(seed))
            for seed in range(seeds)
        ]


def regret(found: Sequence[Found], full: Sequence[Found]) -> tuple[float, float]:
    """Return how much less a search's best is worth than full evaluation's, and the standard error."""
    lost = [other.worth - each.worth for each, other in zip(found, full, strict=True)]
    return statistics.fmean(lost), statistics.stdev(lost) / len(lost) ** 0.5


def main() -> None:
    """Play each way of racing against full evaluation and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sampler", default="cma")
    parser.add_argument("--seeds", type=int, default=40)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument(
        "--racing", nargs="+", default=["on"], help="YAML: on, or a table such as {alpha: 0.5}"
    )
    asked = parser.parse_args()
    records = {
        racing: resolve(
            read_space(
                QUICKSTART, {"racing": yaml.safe_load(racing), "sampler": asked.sampler, "inherit": False}
            )
        )
        for racing in ("off", *asked.racing)
    }
    full = searches(records.pop("off"), seeds=asked.seeds, budget=asked.budget)
    worth = statistics.fmean(found.worth for found in full)
    print(f"{asked.sampler}, {asked.budget} candidates, {asked.seeds} seeds; full evaluation {worth:.4f}\n")
    print("| racing | items | given up | best on fresh items | regret (points) |\n|---|---|---|---|---|")
    for racing, record in records.items():
        found = searches(record, seeds=asked.seeds, budget=asked.budget)
        mean, error = regret(found, full)
        share = statistics.fmean(each.share for each in found)
        dropped = statistics.fmean(each.dropped for each in found)
        worth = statistics.fmean(each.worth for each in found)
        lost = f"{100 * mean:+.2f} ± {100 * error:.2f}"
        print(f"| {racing} | {share:.1%} | {dropped:.0f} | {worth:.4f} | {lost} |", flush=True)


if __name__ == "__main__":
    main()
