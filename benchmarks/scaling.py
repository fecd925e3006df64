"""What scaling costs: the controller's share of a candidate, the front's, and how busy many workers are kept.

The controller is the product's own with everything on (races, heirs by fingerprint, a journal on disk). Its
share is all its time between two candidates that are finished, but for the evaluators', who answer at once:
`simulated.py` says how to items, and fingerprints change with the genes as smoothly. TPE and random search
take any trials for theirs, so between the windows trials are random, or TPE would take hours for it.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.simulated import QUICKSTART, make_items
from evomerge.archive.folder import RunFolder
from evomerge.archive.record import RunRecord
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.archive.trials import LABEL
from evomerge.controller.live import LiveRun
from evomerge.controller.loop import run_loop
from evomerge.controller.sampling import SamplerContext, make_sampler
from evomerge.controller.setup import resolve
from evomerge.controller.tally import Snapshot
from evomerge.dispatch.job import Job
from evomerge.space import read_space
from evomerge.types import Identified, ItemScores, Outcome, Scored

SAMPLERS = ("random", "cma", "nsgaii", "tpe")
TASKS = ("math_b", "lang_b", "logic_b")
MARKS = (100, 1000, 3000, 10000)
WIDTH = 100
PROMPTS, TOKENS = 16, 32
_STEEP = 3.0

Vector = NDArray[np.float64]


def record_of(sampler: str, objectives: int) -> RunRecord:
    """Return the quickstart's record with another sampler and so many objectives."""
    asked = [{"task": task, "metric": "acc"} for task in TASKS[:objectives]]
    return resolve(read_space(QUICKSTART, {"objectives": asked, "sampler": sampler}))


class AtOnce:
    """Evaluators whose time is not the controller's: its clock stands meanwhile."""

    capacity = 1

    def __init__(self, record: RunRecord, study: StudyRecord) -> None:
        self._record, self._study, self._brief = record, study, record.brief()
        genes = len(record.genome.genes)
        self._items = [
            make_items(len(record.items[each.task]["search"]), genes, seed=i)
            for i, each in enumerate(record.objectives)
        ]
        rng = np.random.default_rng(0)
        self._logits = rng.normal(size=(PROMPTS, TOKENS))
        self._slopes = _STEEP * rng.normal(size=(genes, PROMPTS, TOKENS))
        self._waiting: list[Job] = []
        self.wall = self.cpu = 0.0

    def submit(self, job: Job) -> None:
        """Take a job."""
        self._waiting.append(job)

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Answer the oldest job."""
        wall, cpu = time.perf_counter(), time.process_time()
        job = self._waiting.pop(0)
        point = self._point(job.trial)
        outcome = self._identified(job, point) if job.identify else self._scored(job, point)
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        return [(job, outcome)]

    def withdraw(self) -> list[Job]:
        """Return all that wait."""
        taken, self._waiting = self._waiting, []
        return taken

    def close(self) -> None:
        """Do nothing."""

    def _point(self, trial: int) -> Vector:
        """Return where a trial lies in the unit cube; baselines lie anywhere."""
        frozen, genes = self._study.trials()[trial], self._record.genome.genes
        if LABEL in frozen.user_attrs:
            return np.random.default_rng(trial).random(len(genes))
        return np.asarray([(float(frozen.params[g.name]) - g.low) / (g.high - g.low) for g in genes])

    def _identified(self, job: Job, point: Vector) -> Identified:
        logits = self._logits + np.tensordot(point, self._slopes, axes=1)
        rows = (logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))).astype(np.float32)
        return Identified(
            digest=job.recipe.key, fingerprint=tuple(map(tuple, rows.tolist())), noise=1e-6,
            device="none", merge_seconds=0.0, basis="prompts",
        )  # fmt: skip

    def _scored(self, job: Job, point: Vector) -> Scored:
        of = [self._of(i, job, items.passed(point)) for i, items in enumerate(self._items)]
        means = [float(np.mean(items.scores)) for items in of]
        scores = {m.name: mean for m, mean in zip(self._record.objectives, means, strict=True)}
        return Scored(scores=scores, items=tuple(of), merge_seconds=0.0, score_seconds=0.0, device="none")

    def _of(self, index: int, job: Job, passed: Vector) -> ItemScores:
        measure = self._record.objectives[index]
        parts = self._brief.parts(measure.task, job.split)
        start = 0 if job.look is None else sum(map(len, parts[: job.look]))
        order = [item for part in (parts if job.look is None else [parts[job.look]]) for item in part]
        return ItemScores(
            task=measure.task,
            metric=measure.metric,
            filter=measure.filter,
            items=tuple(order),
            scores=tuple(passed[start : start + len(order)].tolist()),
        )


@dataclass
class Meter:
    """The controller's milliseconds per candidate, in the windows before the marks."""

    evaluators: AtOnce
    marks: Sequence[int]
    wall: dict[int, list[float]] = field(default_factory=dict)
    cpu: dict[int, list[float]] = field(default_factory=dict)
    _last: tuple[int, float, float] | None = None

    def window(self, finished: int) -> int | None:
        """Return the mark whose window this is; None outside."""
        return next((mark for mark in self.marks if mark - WIDTH // 2 < finished <= mark + WIDTH // 2), None)

    def read(self, snapshot: Snapshot) -> None:
        """Take the time that the last candidate took."""
        finished = snapshot.finished
        wall = time.perf_counter() - self.evaluators.wall
        cpu = time.process_time() - self.evaluators.cpu
        if self._last is not None and finished == self._last[0]:
            return
        if self._last is not None and (mark := self.window(finished)) is not None:
            count = finished - self._last[0]
            self.wall.setdefault(mark, []).append(1000 * (wall - self._last[1]) / count)
            self.cpu.setdefault(mark, []).append(1000 * (cpu - self._last[2]) / count)
        self._last = (finished, wall, cpu)

    def cells(self) -> str:
        """Return median and 95th percentile at each mark, and the median of the processor's time."""
        return " | ".join(
            f"{statistics.median(wall):.1f}, {np.quantile(wall, 0.95):.1f} ({statistics.median(cpu):.1f})"
            for wall, cpu in zip(self.wall.values(), self.cpu.values(), strict=True)
        )


def share(record: RunRecord, folder: RunFolder, marks: Sequence[int]) -> Meter:
    """Search until the last mark is passed, and return what the controller took."""
    folder.create(record, "")
    study = StudyRecord(
        open_storage(folder.journal), record.study,
        objectives=record.objectives, genes=record.genome.genes, sampler=None,
    )  # fmt: skip
    name = record.space.sampler_choice.name
    context = SamplerContext(
        genes=record.genome.genes,
        objectives=record.objectives,
        seed=0,
        workers=1,
        trials_before=0,
        options={},
    )
    own = make_sampler(name, context)
    between = make_sampler("random", context) if name == "tpe" else own
    evaluators = AtOnce(record, study)
    meter = Meter(evaluators, marks)

    def observe(snapshot: Snapshot) -> None:
        meter.read(snapshot)
        study.study.sampler = own if meter.window(snapshot.finished + 1) is not None else between

    study.study.sampler = between
    run_loop(LiveRun(folder, record, study, budget=marks[-1] + WIDTH // 2), evaluators, observe)
    return meter


def print_shares(samplers: Sequence[str], objectives: Sequence[int], marks: Sequence[int]) -> None:
    """Print the controller's share by sampler, objectives and trials."""
    heads = " | ".join(f"at {mark:,}" for mark in marks)
    print(f"| sampler | objectives | {heads} |\n|---|---|{'---|' * len(marks)}", flush=True)
    for count in objectives:
        for name in samplers:
            if name == "cma" and count > 1:
                continue  # it searches for one
            with tempfile.TemporaryDirectory(prefix="scaling-") as temporary:
                found = share(record_of(name, count), RunFolder(Path(temporary) / "run"), marks)
            print(f"| {name} | {count} | {found.cells()} |", flush=True)


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--objectives", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--marks", type=int, nargs="+", default=list(MARKS))
    asked = parser.parse_args()
    print_shares(asked.samplers, asked.objectives, asked.marks)


if __name__ == "__main__":
    main()
