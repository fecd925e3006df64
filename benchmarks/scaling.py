"""What scaling costs: the controller's share of a candidate, the front's, and how busy many workers are kept.

The controller is the product's own with everything on (races, heirs by fingerprint, a journal on disk). Its
share is all its time between two candidates that are finished, but for that of the evaluators, who answer at
once. TPE takes any trials for its own, so between the windows they are drawn at random, or it would take
hours. The 64 workers sleep in place of evaluating; the two are real, and search the quickstart.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from optuna.samplers import BaseSampler

from benchmarks.at_once import AtOnce
from benchmarks.simulated import QUICKSTART
from benchmarks.sleeping import Sleeper
from evomerge.archive.folder import RunFolder
from evomerge.archive.front import Member, ParetoArchive
from evomerge.archive.record import RunRecord
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.controller.live import LiveRun
from evomerge.controller.loop import run_loop
from evomerge.controller.public import prepare
from evomerge.controller.sampling import SamplerContext, make_sampler
from evomerge.controller.search import Options, execute
from evomerge.controller.setup import resolve
from evomerge.controller.tally import Snapshot
from evomerge.dispatch.cluster import local_ray
from evomerge.dispatch.pool import WorkerPool
from evomerge.dispatch.ray import RayDispatcher
from evomerge.dispatch.shape import WorkerShape
from evomerge.space import read_space

SAMPLERS = ("random", "cma", "nsgaii", "tpe")
TASKS = ("math_b", "lang_b", "logic_b")
MARKS = (100, 1000, 3000, 10000)
WIDTH = 100


def record_of(sampler: str, objectives: int) -> RunRecord:
    """Return the quickstart's record with another sampler and so many objectives."""
    asked = [{"task": task, "metric": "acc"} for task in TASKS[:objectives]]
    return resolve(read_space(QUICKSTART, {"objectives": asked, "sampler": sampler}))


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


def opened(record: RunRecord, folder: RunFolder, *, workers: int) -> StudyRecord:
    """Return the study of a new run, its sampler ready."""
    folder.create(record, "")
    study = StudyRecord(
        open_storage(folder.journal), record.study,
        objectives=record.objectives, genes=record.genome.genes, sampler=None,
    )  # fmt: skip
    study.study.sampler = sampler(record, record.space.sampler_choice.name, workers=workers)
    return study


def sampler(record: RunRecord, name: str, *, workers: int) -> BaseSampler:
    """Return a sampler for the run, whatever its own is."""
    context = SamplerContext(
        genes=record.genome.genes,
        objectives=record.objectives,
        seed=0,
        workers=workers,
        trials_before=0,
        options={},
    )
    return make_sampler(name, context)


def share(record: RunRecord, folder: RunFolder, marks: Sequence[int]) -> Meter:
    """Search until the last mark is passed, and return what the controller took."""
    study = opened(record, folder, workers=1)
    own = study.study.sampler
    tpe = record.space.sampler_choice.name == "tpe"
    between = sampler(record, "random", workers=1) if tpe else own
    evaluators = AtOnce(record, study)
    meter = Meter(evaluators, marks)

    def observe(snapshot: Snapshot) -> None:
        meter.read(snapshot)
        study.study.sampler = own if meter.window(snapshot.finished + 1) is not None else between

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


def print_front(count: int) -> None:
    """Print what a front of so many points costs, all of them on it, and that of as many points anywhere."""
    rng = np.random.default_rng(0)
    sphere = abs(rng.normal(size=(count, 3)))
    sphere /= np.linalg.norm(sphere, axis=1)[:, None]
    print("| points | on the front | add one that is beaten | add one that joins | hypervolume |")
    print("|---|---|---|---|---|")
    for kind, points in {"all on the front": sphere, "anywhere": rng.random((count, 3))}.items():
        front = ParetoArchive(
            tuple(Member(trial=int(i), scores=tuple(points[i].tolist())) for i in _best_of(points))
        )
        beaten, joining = tuple(0.999 * each for each in front.front[-1].scores), (2.0, 0.0, 0.0)
        costs = [
            _milliseconds(partial(front.add, Member(trial=count, scores=beaten))),
            _milliseconds(partial(front.add, Member(trial=count, scores=joining))),
            _milliseconds(partial(front.hypervolume, (0.0, 0.0, 0.0))),
        ]
        cells = " | ".join(f"{cost:.1f} ms" for cost in costs)
        print(f"| {count:,}, {kind} | {len(front.front):,} | {cells} |", flush=True)


def _best_of(points: NDArray[np.float64]) -> list[int]:
    """Return which points no other dominates."""
    found = []
    for i, point in enumerate(points):
        if not (points > point).all(axis=1).any():  # no two are equal in any objective
            found.append(i)
    return found


def _milliseconds(work: Callable[[], object]) -> float:
    """Return the median of what `work` takes."""
    found = []
    for _ in range(9):
        started = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - started))
    return statistics.median(found)


def print_utilisation(workers: int, seconds: float, each: int) -> None:
    """Print how busy so many workers are that sleep in place of evaluating, once all have begun."""
    record = resolve(read_space(QUICKSTART, {"racing": False, "inherit": False}))
    objective, total = record.objectives[0], workers * (each + 2)
    items, finished = record.items[objective.task]["search"], list[float]()
    started = time.perf_counter()
    with local_ray(cpus=workers), tempfile.TemporaryDirectory(prefix="scaling-") as temporary:
        import ray

        shape = WorkerShape(count=workers, cpus=1, gpus=0.0)
        actor = ray.remote(num_cpus=1)(Sleeper)
        pool = WorkerPool(ray, lambda _: actor.remote(seconds, objective, items), shape)
        while pool.starting:
            done, _ = ray.wait(list(pool.starting), num_returns=1, timeout=1.0)
            pool.admit(done)
        begun = time.perf_counter()
        folder = RunFolder(Path(temporary) / "run")
        live = LiveRun(folder, record, opened(record, folder, workers=workers), budget=total)

        def observe(snapshot: Snapshot) -> None:
            now = time.perf_counter()
            finished.extend([now] * (snapshot.finished - len(finished)))

        run_loop(live, RayDispatcher(ray, pool, capacity=workers), observe)
    first, last = finished[workers - 1], finished[total - workers - 1]
    busy = (total - 2 * workers) * seconds / (workers * (last - first))
    print("| workers | sleep | candidates | start | busy |\n|---|---|---|---|---|")
    print(f"| {workers} | {seconds:g} s | {total} | {begun - started:.0f} s | {busy:.1%} |", flush=True)


def print_pairs(budget: int, rounds: int) -> None:
    """Print how much more two real workers finish than one, once the first candidates are."""
    print("| round | one worker | two workers | times |\n|---|---|---|---|", flush=True)
    for number in range(rounds):
        one, two = (_per_minute(workers, budget) for workers in (1, 2))
        print(f"| {number + 1} | {one:.0f} per minute | {two:.0f} | {two / one:.2f} |", flush=True)


def _per_minute(workers: int, budget: int) -> float:
    times: list[float] = []

    def observe(snapshot: Snapshot) -> None:
        times.extend([time.perf_counter()] * (snapshot.finished - len(times)))

    changes = {
        "budget": budget,
        "threads": 1,
        "racing": False,
        "items": {"search": 200, "select": 5, "report": 5},
    }
    with tempfile.TemporaryDirectory(prefix="scaling-") as temporary:
        options, run = Options(workers=workers), Path(temporary) / "run"
        execute(prepare(QUICKSTART, run=run, resume=False, changes=changes, options=options),
                options=options, observe=observe)  # fmt: skip
    begin = len(times) // 4  # warm by then
    return 60 * (len(times) - 1 - begin) / (times[-1] - times[begin])


PARTS = ("share", "front", "utilisation", "pairs")


def main() -> None:
    """Print the tables that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--objectives", type=int, nargs="+", default=[1, 3])
    parser.add_argument("--marks", type=int, nargs="+", default=list(MARKS))
    parser.add_argument("--points", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--sleep", type=float, default=5.0)
    parser.add_argument("--each", type=int, default=6, help="candidates of each worker that count")
    parser.add_argument("--budget", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=2)
    asked = parser.parse_args()
    if "share" in asked.parts:
        print_shares(asked.samplers, asked.objectives, asked.marks)
    if "front" in asked.parts:
        print_front(asked.points)
    if "utilisation" in asked.parts:
        print_utilisation(asked.workers, asked.sleep, asked.each)
    if "pairs" in asked.parts:
        print_pairs(asked.budget, asked.rounds)


if __name__ == "__main__":
    main()
