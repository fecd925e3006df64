"""The live line of a search: done, best, rate, time left; plain lines where stderr is no terminal."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.live import Live
from rich.text import Text

from evomerge.controller.tally import Best, Snapshot
from evomerge.report.durations import duration

_PLAIN_EVERY = 10.0


class ProgressLine:
    """Shows snapshots of a search on `console` while the `with` lasts."""

    def __init__(self, console: Console, *, quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._live = Live(console=console, refresh_per_second=4, transient=True)
        self._said = ("", 0.0)
        self._last: Snapshot | None = None
        self._printed = ""

    def __enter__(self) -> ProgressLine:
        if self._console.is_terminal and not self._quiet:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._console.is_terminal and not self._quiet:
            self._live.stop()
        if self._last is not None and not self._quiet and line(self._last).plain != self._printed:
            self._print(self._last)

    def show(self, snapshot: Snapshot) -> None:
        """Show how far the search is."""
        self._last = snapshot
        if self._quiet:
            return
        if self._console.is_terminal:
            self._live.update(line(snapshot))
        else:
            self._say(snapshot)

    def _say(self, snapshot: Snapshot) -> None:
        """Print a line when the best changes, at most every few seconds, and at the end."""
        best = _bests(snapshot)
        said, when = self._said
        now = time.monotonic()
        if (best != said and now - when >= 1.0) or now - when >= _PLAIN_EVERY:
            self._print(snapshot)
            self._said = (best, now)

    def _print(self, snapshot: Snapshot) -> None:
        text = line(snapshot)
        self._console.print(text, highlight=False, soft_wrap=True)
        self._printed = text.plain


def line(snapshot: Snapshot) -> Text:
    """Return the state of a search as one line."""
    parts = [f"{snapshot.finished}/{snapshot.budget} done"]
    counts = {"dropped": snapshot.dropped, "inherited": snapshot.inherited, "failed": snapshot.failed}
    if said := ", ".join(f"{count} {what}" for what, count in counts.items() if count):
        parts.append(said)
    if snapshot.items < snapshot.all_items:
        parts.append(f"{snapshot.items / snapshot.all_items:.0%} of items")
    if best := _bests(snapshot):
        parts.append(best)
    if len(snapshot.best) > 1 and snapshot.hypervolume is not None:
        parts.append(f"front {snapshot.front}, hypervolume {snapshot.hypervolume:.4f}")
    if snapshot.finished_now:
        parts.append(f"{snapshot.per_minute:.0f}/min")
        left = snapshot.budget - snapshot.finished
        if left > 0:
            parts.append(f"{duration(60 * left / snapshot.per_minute)} left")
        else:
            parts.append(f"took {duration(snapshot.seconds)}")
    text = Text("  ".join(parts))
    if snapshot.failed and snapshot.last_failure:
        text.append(f"\nlast failure: {snapshot.last_failure.splitlines()[0][:200]}", style="yellow")
    return text


def _bests(snapshot: Snapshot) -> str:
    return ", ".join(_best(best) for best in snapshot.best)


def _best(best: Best) -> str:
    against = f" (baselines {best.baseline:.3f})" if best.baseline is not None else ""
    return f"{best.objective.name} {best.score:.3f}{against}"
