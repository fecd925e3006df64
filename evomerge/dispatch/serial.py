"""One evaluator in this process: for debugging, and the yardstick for the other backends."""

from __future__ import annotations

from evomerge.dispatch.job import Crew, Job, crew_at
from evomerge.dispatch.worker import Worker
from evomerge.evaluate.brief import Brief
from evomerge.types import Outcome


class SerialDispatcher:
    """Evaluates a job when it is collected."""

    capacity = 1

    def __init__(self, brief: Brief) -> None:
        self._worker = Worker(brief)
        self._waiting: list[Job] = []

    def submit(self, job: Job) -> None:
        self._waiting.append(job)

    def collect(self) -> list[tuple[Job, Outcome]]:
        if not self._waiting:
            return []
        job = self._waiting.pop(0)
        return [(job, self._worker.run(job))]

    def withdraw(self) -> list[Job]:
        taken, self._waiting = self._waiting, []
        return taken

    def crew(self) -> Crew:
        return crew_at(self._waiting[:1], idle=0 if self._waiting else 1)

    def close(self) -> None:
        self._worker.close()
