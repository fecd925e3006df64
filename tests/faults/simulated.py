"""Whole searches whose evaluator is simulated, cheap enough to be killed at many instants.

Everything but the models is the product's own. Where `alike`, candidates that lie near each other are one
model or all but one, and answer as one, so that they are twins, heirs, audited, or given up at once.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.archive.record import RunRecord
from evomerge.archive.run import Run
from evomerge.archive.study import repair_journal
from evomerge.archive.trials import LABEL
from evomerge.controller import equivalents
from evomerge.dispatch.job import Job
from evomerge.seeds import derive
from evomerge.testing.siblings import PARENTS
from evomerge.types import Identified, Outcome
from tests.controller.raced import NO_START, Vector, measure, record
from tests.controller.test_live import Simulated, Sitting
from tests.faults.leavings import told

BUDGET = 30
FAILS = {9: 0, 12: 1, 17: 0}
"""Trials that fail, and at which look: one of the first few at once, one of them later, one behind them."""
START = "racing: {cold_start: 9, margin: 0}\n"
LONG_START = "racing: {cold_start: 14, looks: [25, 50, 75, 150, 200, 300], margin: 0}\n"


@dataclass(frozen=True, kw_only=True)
class Case:
    """A search: its rules, its sampler, how many objectives, and who is told apart how."""

    rules: str
    sampler: str
    objectives: int = 1
    tells: str = "nobody"

    @property
    def record(self) -> RunRecord:
        """The record of the run."""
        measures = [measure(name) for name in "tu"[: self.objectives]]
        made = record(*measures, rules=f"{self.rules}sampler: {self.sampler}\n")
        return replace(made, deterministic=self.tells != "nobody")


CASES = {
    "all items": Case(rules="racing: off\n", sampler="cma"),
    "against rivals": Case(rules=NO_START, sampler="cma", tells="weights"),
    "first few": Case(rules=START, sampler="cma"),
    "first few, two objectives": Case(rules=START, sampler="random", objectives=2),
    "first few and twins": Case(rules=LONG_START, sampler="cma", tells="weights"),
    "first few, twins and a failure": Case(rules=LONG_START, sampler="random", tells="weights"),
    "first few and the like": Case(rules=LONG_START, sampler="random", tells="answers"),
}


@dataclass
class Evaluators(Simulated):
    """Evaluators to whom candidates are the same that lie in one corner."""

    tells: str = "nobody"
    sitting: Sitting | None = None

    def _place(self, job: Job) -> tuple[str, float]:
        """Return the corner a trial lies in, and how far from it."""
        assert self.sitting is not None
        trial = self.sitting.study.trials()[job.trial]
        if (label := trial.user_attrs.get(LABEL)) is not None:
            like_others = self.tells == "answers" and label == "task arithmetic"
            return "1-1-1" if like_others else str(label), 0.0
        values = [float(value) for value in trial.params.values()]
        return "-".join(str(round(value)) for value in values[:3]), 1e-4 * sum(values)

    def scores(self, job: Job) -> list[Vector]:
        """Return the scores of a job's recipe, of all in a corner the same."""
        if self.tells == "nobody":
            return super().scores(job)
        corner, _ = self._place(job)
        gains = self.spread * np.random.default_rng(derive(0, corner)).normal(size=len(self._siblings)) - 0.5
        return [
            siblings.merge(np.full(PARENTS, 1 / PARENTS), gain=gain, name=corner)
            for siblings, gain in zip(self._siblings, gains, strict=True)
        ]

    def _answer(self, job: Job) -> Outcome:
        if not job.identify:
            return super()._answer(job)
        corner, away = self._place(job)
        if self.tells == "weights":
            return Identified(digest=corner, fingerprint=(), noise=0.0, device="none", merge_seconds=0.0)
        rng = np.random.default_rng(derive(0, "prints", corner))
        rows = np.log(rng.dirichlet(np.ones(4), size=3)).astype(np.float32)
        return Identified(
            digest=f"{corner} {away}", fingerprint=tuple(tuple(map(float, row)) for row in rows), noise=1e-3,
            device="none", merge_seconds=0.0, basis="prompts",
        )  # fmt: skip


def search(path: str, name: str) -> None:
    """Begin a search in a folder, or go on with it."""
    logging.disable(logging.CRITICAL)
    equivalents.AUDITED = 0.3
    case, place = CASES[name], Path(path)
    if place.exists():
        repair_journal(place / "study.journal")
    evaluators = Evaluators(case.record, fails=FAILS, spread=0.3, tells=case.tells)
    evaluators.sitting = Sitting(case.record, place, BUDGET)
    evaluators.sitting.run(evaluators)


def leavings(path: Path, name: str) -> dict[str, Any]:
    """Return what the search has left."""
    from evomerge.archive.folder import RunFolder

    return told(Run(RunFolder(path), CASES[name].record))
