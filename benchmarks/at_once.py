"""Evaluators that answer at once, for searches with races and heirs, one objective or several.

`simulated.py` says how to items, each measure having some of its own; fingerprints change with the genes as
smoothly.
"""

from __future__ import annotations

import time

import numpy as np

from benchmarks.simulated import Vector, make_items
from evomerge.archive.record import RunRecord
from evomerge.archive.study import StudyRecord
from evomerge.archive.trials import LABEL
from evomerge.dispatch.job import Job
from evomerge.types import Identified, ItemScores, Outcome, Scored

PROMPTS, TOKENS = 16, 32
_STEEP = 3.0


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
