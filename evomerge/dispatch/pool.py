"""Ray actors that come when there is room, take turns, and are replaced when they are lost."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any

from evomerge.dispatch.shape import WorkerShape, read_cluster
from evomerge.errors import RequestError, WorkError

_log = logging.getLogger(__name__)

PATIENCE_SECONDS = 600.0
"""How long to be without any worker: an autoscaler may need minutes for a node."""

AGAIN_SECONDS = 60.0
"""How long to wait before a worker is started again that could not start, as others can."""

_NOTICE_SECONDS = 30.0
_STARTS = 2


@dataclass(frozen=True, kw_only=True)
class _Start:
    actor: Any
    attempt: int


class WorkerPool:
    """The workers that are not at work. One that is lost has a successor.

    One that fails to start twice is missed for a minute and then tried again: what kept it from
    starting, as another program's use of the memory, may be over.

    `hire` asks Ray for an actor with a method `ready`, which tells in lines what was done for it; it is given
    the actor that the new one succeeds. `ray` is Ray, or a stand-in. While `busy`, patience has no end.
    """

    def __init__(
        self,
        ray: Any,
        hire: Callable[[Any], Any],
        shape: WorkerShape,
        *,
        patience: float = PATIENCE_SECONDS,
        busy: Callable[[], bool] = lambda: False,
    ) -> None:
        self._ray, self._hire, self._busy = ray, hire, busy
        self._shape, self._patience = shape, patience
        self._starting: dict[Any, _Start] = {}
        self._idle: deque[Any] = deque()
        self._fresh: list[Any] = []  # those of the idle that have had no job yet
        self._missing: deque[tuple[float, Any]] = deque()  # who could not start, and when it is tried again
        self._proven = False
        self._last_words = ""
        self._changed = time.monotonic()
        self.grow(shape.count)

    @property
    def starting(self) -> Collection[Any]:
        """References that are there once a worker is ready, or has failed to start."""
        return self._starting.keys()

    @property
    def idle(self) -> int:
        """How many workers wait for a job."""
        return len(self._idle)

    @property
    def missing(self) -> int:
        """How many workers could not start and are tried again later."""
        return len(self._missing)

    def grow(self, count: int) -> None:
        """Start so many workers more."""
        for _ in range(count):
            self._start(attempt=1, after=None)

    def await_first(self) -> None:
        """Wait until one worker is ready.

        Raises `WorkError` with their own error if none can start, `RequestError` if none has come in time.
        """
        begun, told = time.monotonic(), False
        while not self._idle:
            self._check_left("could start")
            if self._late():
                raise RequestError(
                    f"asked Ray for {self._shape}, and none has come in {self._patience:g} seconds; "
                    f"the cluster has {read_cluster(self._ray)}: ask for less, or try again when it has room"
                )
            if not told and time.monotonic() - begun > _NOTICE_SECONDS:
                told = True
                _log.warning(
                    "no worker yet; asked Ray for %s, which has %s; waiting up to %g seconds",
                    self._shape,
                    read_cluster(self._ray),
                    self._patience,
                )
            done, _ = self._ray.wait(list(self._starting), num_returns=1, timeout=min(1.0, self._patience))
            self.admit(done)

    def check(self) -> None:
        """Raise `WorkError` if all workers were lost, and none has come back or can."""
        self._check_left("is left")
        if not self._idle and self._late():
            raise WorkError(
                f"all workers were lost and none has come back in {self._patience:g} seconds; "
                "continue with `--resume`"
            )

    def admit(self, references: Iterable[Any]) -> None:
        """Let those of `starting` that are done take turns, or start them again."""
        from ray.exceptions import RayActorError, RayError

        for reference in references:
            if (start := self._starting.pop(reference, None)) is None:
                continue
            self._changed = time.monotonic()
            try:
                told = self._ray.get(reference)
            except RayError as error:
                its_own = isinstance(error, RayActorError) and error.actor_init_failed
                self._lose(start, cause(error), again=self._proven or not its_own)
            else:
                self._proven = True
                self._idle.append(start.actor)
                self._fresh.append(start.actor)
                for line in told:
                    _log.info("%s", line)

    def refill(self) -> None:
        """Start workers again that could not start, as long as there are others."""
        while self._missing and self._missing[0][0] <= time.monotonic():
            _, before = self._missing.popleft()
            self._start(attempt=_STARTS, after=before)

    def take(self, actor: Any | None = None) -> Any | None:
        """Return that worker, without one the worker that has been idle longest; None if it is not idle."""
        if actor is None and self._idle:
            actor = self._idle[0]
        if actor not in self._idle:
            return None
        self._idle.remove(actor)
        if actor in self._fresh:
            self._fresh.remove(actor)
        return actor

    def take_fresh(self) -> Any | None:
        """Return a worker that has had no job yet; None if none is idle."""
        return self.take(self._fresh[0]) if self._fresh else None

    def give_back(self, actor: Any) -> None:
        """Let a worker that `take` returned take turns again."""
        self._idle.append(actor)

    def replace(self, actor: Any) -> None:
        """End a worker that `take` returned, dead or alive, and start another."""
        self._changed = time.monotonic()
        self._ray.kill(actor)
        self._start(attempt=1, after=actor)

    def close(self) -> None:
        """End the workers that are here."""
        for actor in [*self._idle, *(start.actor for start in self._starting.values())]:
            self._ray.kill(actor)
        self._idle.clear()
        self._fresh.clear()
        self._starting.clear()
        self._missing.clear()

    def _start(self, *, attempt: int, after: Any | None) -> None:
        actor = self._hire(after)
        self._starting[actor.ready.remote()] = _Start(actor=actor, attempt=attempt)

    def _lose(self, start: _Start, why: str, *, again: bool) -> None:
        self._ray.kill(start.actor)
        self._last_words = why
        if again and start.attempt < _STARTS:
            self._start(attempt=start.attempt + 1, after=start.actor)
        else:
            self._missing.append((time.monotonic() + AGAIN_SECONDS, start.actor))
            _log.warning(
                "a worker could not start, so for %g seconds the search has one less: %s", AGAIN_SECONDS, why
            )

    def _check_left(self, what: str) -> None:
        if not self._idle and not self._starting:
            raise WorkError(
                f"no worker {what}: {self._last_words} (`--serial` runs without workers, for debugging)"
            )

    def _late(self) -> bool:
        """Return whether nobody has come or gone for as long as patience lasts."""
        return time.monotonic() - self._changed > self._patience and not self._busy()


def cause(error: Exception) -> str:
    """Return one line of what Ray tells of a lost worker.

    Of an actor that died that is the last, its own error or how its process ended; of memory, nodes and
    environments the first, which pages of advice follow; of an error that was raised in one, that error's.
    """
    from ray.exceptions import RayActorError, RayTaskError

    if isinstance(error, RayTaskError):
        return f"{type(error.cause).__name__}: {error.cause}".splitlines()[0]
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return lines[-1 if isinstance(error, RayActorError) else 0]
