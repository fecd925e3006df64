"""The loop: ask, submit, collect, record; a free worker never waits for another."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeAlias

from evomerge.controller.live import LiveRun
from evomerge.controller.tally import Snapshot
from evomerge.dispatch.job import Dispatcher
from evomerge.interrupts import held

Observer: TypeAlias = Callable[[Snapshot], None]


def run_loop(
    run: LiveRun, dispatcher: Dispatcher, observe: Observer, *, deadline: float | None = None
) -> None:
    """Evaluate candidates until the budget is spent or the deadline (`time.monotonic`) has passed.

    Candidates that an evaluator has begun by the deadline are finished; others stay recorded as running,
    and a resumed search takes them up. An interrupt cuts the waiting short, never a record.
    """
    flying = 0
    while True:
        with held():
            late = _past(deadline)
            if late:
                flying -= _put_off(run, dispatcher)
            while flying < dispatcher.capacity:
                job = run.next_job(begin=not late)
                if job is None:
                    break
                dispatcher.submit(job)
                flying += 1
        observe(run.snapshot())
        if flying == 0:
            return
        finished = dispatcher.collect()
        with held():
            for job, outcome in finished:
                run.take(job, outcome)
        flying -= len(finished)


def _put_off(run: LiveRun, dispatcher: Dispatcher) -> int:
    """Take back the candidates that no evaluator has begun, and return how many."""
    count = 0
    for job in dispatcher.withdraw():
        if run.has_begun(job.trial):
            dispatcher.submit(job)
        else:
            run.put_off(job.trial)
            count += 1
    return count


def _past(deadline: float | None) -> bool:
    return deadline is not None and time.monotonic() >= deadline
