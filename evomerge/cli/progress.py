"""The progress of a search: a live view on a terminal, plain lines where stderr cannot be drawn on."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console, ConsoleOptions, RenderResult
from rich.live import Live
from rich.text import Text

from evomerge.cli.live_view import view
from evomerge.controller.tally import Best, Snapshot
from evomerge.report.durations import duration

_PLAIN_EVERY = 10.0
_A_SECOND = 4
"""How often the live view is drawn: however fast snapshots come, only the last of them is."""


class Progress:
    """Shows snapshots of a search on `console` while the `with` lasts.

    What is logged or printed meanwhile appears above the live view.
    """

    def __init__(self, console: Console, *, name: str = "", quiet: bool = False) -> None:
        self._console = console
        self._quiet = quiet
        self._drawn = console.is_terminal and not console.is_dumb_terminal and not quiet
        self._latest = _Latest(name)
        self._live = Live(self._latest, console=console, refresh_per_second=_A_SECOND, transient=True)
        self._said = ("", 0.0)
        self._printed = ""

    def __enter__(self) -> Progress:
        if self._drawn:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._drawn:
            self._live.stop()
        last = self._latest.snapshot
        if last is not None and not self._quiet and line(last).plain != self._printed:
            self._print(last)

    def show(self, snapshot: Snapshot) -> None:
        """Show how far the search is."""
        first = self._latest.snapshot is None
        self._latest.take(snapshot)
        if first and self._drawn:
            self._live.refresh()  # the others wait for their turn
        if not self._quiet and not self._drawn:
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


class _Latest:
    """The last snapshot, drawn only when the screen is."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._taken = 0.0
        self.snapshot: Snapshot | None = None

    def take(self, snapshot: Snapshot) -> None:
        self.snapshot, self._taken = snapshot, time.monotonic()

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        del console
        if self.snapshot is not None:
            since = time.monotonic() - self._taken
            yield view(self.snapshot, name=self._name, width=options.max_width, since=since)


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
