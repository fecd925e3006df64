"""What Ray runs in a worker's process. Imports nothing heavy: see `RayWorker`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from evomerge.dispatch.job import Job
from evomerge.evaluate.brief import Brief
from evomerge.types import Outcome

if TYPE_CHECKING:
    from evomerge.dispatch.supply import Supply
    from evomerge.dispatch.worker import Worker


class RayWorker:
    """A `Worker` whose home is `home`, before any library looks there; None leaves it.

    The processes of a private Ray inherit its folder as their home. Ray's own way to change that, a runtime
    environment, starts a worker later: 2.65 and not 2.43 seconds after it is asked for. With a `supply`, this
    is a node of a cluster that may have the sources elsewhere, or gets them from the `depot`.
    """

    def __init__(
        self, brief: Brief, home: str | None, supply: Supply | None = None, depot: Any | None = None
    ) -> None:
        if home is not None:
            os.environ["HOME"] = home
        self._done: tuple[str, ...] = ()
        if supply is not None:
            from evomerge.dispatch.shipping import settled

            brief, self._done = settled(brief, supply, depot)
        from evomerge.dispatch.worker import Worker

        self._worker: Worker = Worker(brief)

    def ready(self) -> tuple[str, ...]:
        """Return, once sources and tasks are there, what was done for that, in lines."""
        return self._done

    def run(self, job: Job) -> Outcome:
        """Return what the job asks of its recipe, or why there is nothing."""
        return self._worker.run(job)
