"""Nodes that join a cluster while a search runs: room for more workers, looked for now and then."""

from __future__ import annotations

import logging
import time
from typing import Any

from evomerge.dispatch.shape import WorkerShape, more_room, read_cluster

_log = logging.getLogger(__name__)

LOOK_SECONDS = 10.0


class Growth:
    """Tells how many workers more a cluster has room for; only for searches that take all there is.

    What a worker takes was decided when the search began: one with GPUs takes none on nodes without.
    """

    def __init__(self, ray: Any, shape: WorkerShape, *, every: float) -> None:
        self._ray, self._shape, self._every = ray, shape, every
        self._looked = time.monotonic()

    def more(self, *, workers: int, starting: int) -> int:
        """Return how many workers to hire beyond `workers`, of whom `starting` may not have their room yet.

        Ray is asked every so many seconds only; 0 in between.
        """
        if time.monotonic() - self._looked < self._every:
            return 0
        self._looked = time.monotonic()
        room, free = more_room(read_cluster(self._ray), self._shape)
        more = max(0, min(room - workers, free - starting))
        if more:
            _log.info("the cluster has room for %d worker(s) more, %d in all", more, workers + more)
        return more
