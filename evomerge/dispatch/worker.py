"""The process boundary: an evaluator whose every error becomes a `Failed` with its traceback."""

from __future__ import annotations

import time
import traceback
from typing import TYPE_CHECKING, TypeGuard

from evomerge.dispatch.job import Job
from evomerge.evaluate.brief import Brief
from evomerge.types import Failed, Outcome

if TYPE_CHECKING:
    from evomerge.evaluate.evaluator import Evaluator
    from evomerge.evaluate.vllm import VllmEvaluator


class Worker:
    """An evaluator that never raises on a candidate."""

    def __init__(self, brief: Brief) -> None:
        self._evaluator = _evaluator_for(brief)

    def run(self, job: Job) -> Outcome:
        """Return what the job asks of its recipe, or why there is nothing."""
        started = time.monotonic()
        try:
            if job.identify:
                return self._evaluator.identify(job.recipe, screen=job.screen)
            return self._evaluator.evaluate(job.recipe, job.split, job.look)
        except Exception as error:  # a candidate must not take the search down
            return Failed(
                reason=_reason(error),
                traceback=traceback.format_exc(),
                seconds=time.monotonic() - started,
            )

    def close(self) -> None:
        """Unmap the sources."""
        self._evaluator.close()


def _evaluator_for(brief: Brief) -> Evaluator | VllmEvaluator:
    """Return what the brief's backend evaluates by; to import it takes seconds."""
    if brief.backend == "vllm":
        from evomerge.evaluate.vllm import VllmEvaluator

        return VllmEvaluator(brief)
    from evomerge.evaluate.evaluator import Evaluator

    return Evaluator(brief)


def unforeseen(outcome: Outcome) -> TypeGuard[Failed]:
    """Return whether an error that is none of evomerge's ended it: its process may be broken.

    After some CUDA errors every later call fails, too. `Failed` has a traceback for these errors only.
    """
    return isinstance(outcome, Failed) and bool(outcome.traceback)


def _reason(error: Exception) -> str:
    """Return the first line of what an error says.

    One without words (a bare `assert`) is told by the line that raised it.
    """
    if words := str(error).strip():
        return f"{type(error).__name__}: {words.splitlines()[0]}"
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} at `{last.line}` ({last.filename}:{last.lineno})"
