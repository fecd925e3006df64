"""A run of thousands of candidates: what memory, open files and the disk it takes, per candidate.

The controller is the product's own, with everything on (races, heirs by fingerprint, CMA-ES), and evaluators
that answer at once (`simulated.py`). The worker is the product's own on the zoo, few items each.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import psutil

from benchmarks.simulated import QUICKSTART, SimulatedDispatcher, make_items
from evomerge.archive.folder import RunFolder
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.controller.live import LiveRun
from evomerge.controller.loop import run_loop
from evomerge.controller.sampling import SamplerContext, make_sampler
from evomerge.controller.setup import resolve
from evomerge.controller.tally import Snapshot
from evomerge.dispatch.job import Job
from evomerge.dispatch.worker import Worker
from evomerge.seeds import derive
from evomerge.space import read_space
from evomerge.types import Identified, Outcome

EVERY = 50
PROMPTS, TOKENS = 16, 32


@dataclass
class Meter:
    """Memory and open files as a run goes on."""

    counts: list[int] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)

    def read(self, count: int) -> None:
        """Take a reading after so many candidates."""
        process = psutil.Process()
        self.counts.append(count)
        self.memory.append(process.memory_info().rss)
        self.files.append(process.num_fds())
        print(f"{count}: {self.memory[-1] >> 20} MB, {self.files[-1]} files", file=sys.stderr, flush=True)

    def row(self, name: str, disk: str) -> str:
        """Return a row of the table; slopes are over the last three quarters, once all is loaded."""
        begin = len(self.counts) // 4
        memory, files = (slope(self.counts[begin:], each[begin:]) for each in (self.memory, self.files))
        span = f"{self.memory[begin] / 2**20:.0f} → {self.memory[-1] / 2**20:.0f} MB"
        return f"| {name} | {self.counts[-1]} | {span} | {memory:+.0f} | {files:+.4f} | {disk} |"


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Return by how much y grows with x, by least squares."""
    return float(np.polyfit(x, y, 1)[0])


class Answering(SimulatedDispatcher):
    """Also says who a model is: one of its own, that is like no other."""

    def _identified(self, job: Job) -> Identified:
        rng = np.random.default_rng(derive(0, "prints", job.recipe.key))
        rows = np.log(rng.dirichlet(np.ones(TOKENS), size=PROMPTS)).astype(np.float32)
        return Identified(
            digest=job.recipe.key, fingerprint=tuple(tuple(map(float, row)) for row in rows), noise=1e-6,
            device="none", merge_seconds=0.0, basis="prompts",
        )  # fmt: skip

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Answer the oldest job."""
        if not self._waiting[0].identify:
            return super().collect()
        job = self._waiting.pop(0)
        return [(job, self._identified(job))]


def long_run(count: int, *, seed: int) -> None:
    """Run and print the table."""
    print("| process | candidates | memory | bytes per candidate | open files per candidate | on disk |")
    print("|---|---|---|---|---|---|", flush=True)
    with tempfile.TemporaryDirectory(prefix="long-") as temporary:
        print(controller(count, seed, Path(temporary) / "run"), flush=True)
    print(worker(count, seed), flush=True)


def controller(count: int, seed: int, path: Path) -> str:
    """Return the row of a controller that asks for so many candidates."""
    record = resolve(read_space(QUICKSTART, {"seed": seed}))
    folder, objective = RunFolder(path), record.objectives[0]
    folder.create(record, "")
    study = StudyRecord(
        open_storage(folder.journal), record.study,
        objectives=record.objectives, genes=record.genome.genes, sampler=None,
    )  # fmt: skip
    context = SamplerContext(
        genes=record.genome.genes,
        objectives=record.objectives,
        seed=seed,
        workers=1,
        trials_before=0,
        options={},
    )
    study.study.sampler = make_sampler(record.space.sampler_choice.name, context)
    items = make_items(len(record.items[objective.task]["search"]), len(record.genome.genes), seed=seed)
    meter, seen = Meter(), 0

    def observe(snapshot: Snapshot) -> None:
        nonlocal seen
        if snapshot.finished >= seen:
            seen += EVERY
            meter.read(snapshot.finished)

    dispatcher = Answering(replace(record), study, items)
    run_loop(LiveRun(folder, record, study, budget=count), dispatcher, observe)
    files = {"study": folder.journal, "items": folder.items, "identities": folder.identities}
    disk = ", ".join(f"{name} {file.stat().st_size // count}" for name, file in files.items())
    return meter.row("controller", f"{disk} bytes each")


def worker(count: int, seed: int) -> str:
    """Return the row of a worker that is given so many candidates."""
    record = resolve(
        read_space(QUICKSTART, {"seed": seed, "items": {"search": 20, "select": 5, "report": 5}})
    )
    genes = record.genome.genes
    working, meter = Worker(record.brief()), Meter()
    for number in range(count):
        rng = np.random.default_rng(derive(seed, "long run", number))
        recipe = record.genome.decode({gene.name: gene.at(float(rng.random())) for gene in genes})
        for job in (Job(trial=number, recipe=recipe, identify=True), Job(trial=number, recipe=recipe)):
            working.run(job)
        if (number + 1) % EVERY == 0:
            meter.read(number + 1)
    working.close()
    return meter.row("worker", "nothing")
