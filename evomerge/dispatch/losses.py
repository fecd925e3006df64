"""Tries that came to nothing, and what two of them make of a candidate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from evomerge.types import Failed


@dataclass(frozen=True, kw_only=True)
class Loss:
    """A try that came to nothing: its worker died or took too long, or an error came that nobody foresaw.

    `said` is the worker's end in a line, the time limit as people say it, or the error in a line.
    """

    how: Literal["death", "time", "error"]
    said: str
    traceback: str = ""

    def __str__(self) -> str:
        match self.how:
            case "death":
                return f"it ended its worker: {self.said}"
            case "time":
                return f"it took longer than {self.said}"
            case "error":
                return self.said

    @property
    def ended_worker(self) -> bool:
        """Whether the worker was gone, or had to be ended, and not only replaced to be safe."""
        return self.how != "error"


def failed_twice(first: Loss, last: Loss, *, seconds: float) -> Failed:
    """Return what is recorded of a candidate whose two tries came to nothing; the last took `seconds`."""
    if first.how != last.how:
        reason = f"{last}; the first time: {first}"
    elif last.how == "death":
        reason = f"it ended its worker 2 times: {last.said}"
    else:
        reason = f"{last} twice" if last.how == "time" else last.said
    return Failed(
        reason=reason,
        traceback=last.traceback or first.traceback,
        seconds=seconds,
        ended_workers=first.ended_worker + last.ended_worker,
    )


def seconds_said(seconds: float) -> str:
    """Return a number of seconds as people say it."""
    return f"{seconds:g} second" if seconds == 1 else f"{seconds:g} seconds"
