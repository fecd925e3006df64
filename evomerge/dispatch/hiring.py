"""What asks Ray for workers, of one kind or of two, spread over the nodes."""

from __future__ import annotations

from typing import Any

from evomerge.dispatch.actor import RayWorker
from evomerge.dispatch.shape import WorkerShape


class Hirer:
    """Asks Ray for one more worker of a shape; the successor of a lost one takes what that took.

    Those with GPUs come first. Ray keeps the others off nodes with GPUs as long as there is room elsewhere,
    which it does not do for workers that it is told to spread.
    """

    def __init__(self, ray: Any, arguments: tuple[Any, ...], shape: WorkerShape) -> None:
        def kind(gpus: float, strategy: str) -> Any:
            return ray.remote(
                num_cpus=shape.cpus, num_gpus=gpus, max_restarts=0, scheduling_strategy=strategy
            )(RayWorker)

        self._first = kind(shape.gpus, "SPREAD")
        self._without = kind(0.0, "DEFAULT")
        self._plain = range(shape.count - shape.without_gpu, shape.count)
        self._arguments = arguments
        self._hired = 0
        self._kinds: dict[Any, Any] = {}

    def __call__(self, before: Any | None = None) -> Any:
        """Return an actor that Ray will start when there is room; `before` is the one it succeeds."""
        kind = self._kinds.pop(before, None)
        if kind is None:
            kind = self._without if self._hired in self._plain else self._first
            self._hired += 1
        actor = kind.remote(*self._arguments)
        self._kinds[actor] = kind
        return actor
