"""What a terminal shows of a running search: a few lines, drawn anew as results come in."""

from __future__ import annotations

from collections.abc import Iterator

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from evomerge.controller.tally import Best, Snapshot
from evomerge.dispatch.job import Crew
from evomerge.others_words import plain
from evomerge.report.durations import duration

_NARROW = 76
_LABEL = 9
_MOST_OBJECTIVES, _MOST_TRIALS = 8, 4


def view(snapshot: Snapshot, *, name: str, width: int, since: float = 0.0) -> RenderableType:
    """Return the state of a search as it was `since` seconds ago, to fit into `width` columns.

    Every line is cut to one: the height changes with what there is to say, not with how wide the screen is.
    """
    lines = [_bar(snapshot, name, width), *_rows(snapshot, width, since)]
    for each in lines:
        if isinstance(each, Text):
            each.truncate(width, overflow="ellipsis")
            each.no_wrap = True
    return Group(*lines)


def _bar(snapshot: Snapshot, name: str, width: int) -> RenderableType:
    """Return the name, a bar and the count of what is done, in a line."""
    done = Text(f"{snapshot.finished}/{snapshot.budget}")
    label = Text(plain(name), style="bold", no_wrap=True, overflow="ellipsis")
    label.truncate(max(8, width // 3), overflow="ellipsis")
    length = max(4, min(40, width - label.cell_len - done.cell_len - 2))
    bar = ProgressBar(total=max(1, snapshot.budget), completed=snapshot.finished, width=length)
    table = Table.grid(padding=(0, 1, 0, 0))
    for _ in range(3):
        table.add_column(no_wrap=True)
    table.add_row(label, bar, done)
    return table


def _rows(snapshot: Snapshot, width: int, since: float) -> Iterator[RenderableType]:
    yield _labelled("", " · ".join(_counts(snapshot)))
    yield _labelled("time", " · ".join(_pace(snapshot, since)))
    yield from (_labelled("best" if i == 0 else "", each) for i, each in enumerate(_bests(snapshot, width)))
    if len(snapshot.best) > 1 and snapshot.hypervolume is not None:
        yield _labelled("front", f"{snapshot.front} recipes · hypervolume {snapshot.hypervolume:.4f}")
    if snapshot.closing:
        yield _labelled("workers", "scoring the finalists on select and report items")
    elif snapshot.crew is not None:
        yield _labelled("workers", " · ".join(_at_work(snapshot.crew)))
    if snapshot.failed and snapshot.last_failure:
        said = plain(snapshot.last_failure.splitlines()[0])
        yield _labelled("failure", said, style="yellow")


def _labelled(label: str, said: str, *, style: str = "") -> Text:
    return Text.assemble((f"{label:<{_LABEL}}", "dim"), (said, style))


def _counts(snapshot: Snapshot) -> Iterator[str]:
    """Yield what became of candidates: scored whole, given up early, known from an equal one, failed."""
    counts = {
        "scored": snapshot.scored,
        "dropped": snapshot.dropped,
        "inherited": snapshot.inherited,
        "failed": snapshot.failed,
        "running": snapshot.running,
    }
    yield from (f"{count} {what}" for what, count in counts.items() if count or what in ("scored", "running"))
    if snapshot.items < snapshot.all_items:
        yield f"{snapshot.items / snapshot.all_items:.0%} of items"


def _pace(snapshot: Snapshot, since: float) -> Iterator[str]:
    yield f"{duration(snapshot.seconds + since)} so far"
    if not snapshot.finished_now:
        yield "no candidate finished yet"
        return
    pace = snapshot.per_minute
    yield f"{pace:.0f} candidates/min" if pace >= 10 else f"{pace:.2g} candidates/min"
    if (left := snapshot.budget - snapshot.finished) > 0:
        yield f"about {duration(max(0.0, 60 * left / pace - since))} left"


def _bests(snapshot: Snapshot, width: int) -> Iterator[str]:
    """Yield the best of each objective beside the best baseline's."""
    shown = snapshot.best[:_MOST_OBJECTIVES]
    longest = max((len(_named(each)) for each in shown), default=0)
    for best in shown:
        said = f"{_named(best):<{longest}}  {best.score:.3f}"
        if best.baseline is not None:
            said += f"  {_against(best, best.baseline)}"
        yield said if width < _NARROW else f"{said}  trial {best.trial}"
    if len(snapshot.best) > len(shown):
        yield f"and {len(snapshot.best) - len(shown)} objectives more"


def _against(best: Best, baseline: float) -> str:
    """Return the best baseline's score, and by how much the best is better or worse."""
    lead = best.objective.oriented(best.score) - best.objective.oriented(baseline)
    told = f"{abs(lead):.3f} {'better' if lead > 0 else 'worse'} than" if lead else "as good as"
    return f"{told} the best baseline ({baseline:.3f})"


def _named(best: Best) -> str:
    return f"{plain(best.objective.name)} {best.objective.arrow}"


def _at_work(crew: Crew) -> Iterator[str]:
    """Yield what the workers are at."""
    if crew.scoring:
        yield f"{len(crew.scoring)} scoring {_trials(crew.scoring)}"
    if crew.merging:
        yield f"{len(crew.merging)} merging {_trials(crew.merging)}"
    for what, count in (("idle", crew.idle), ("starting", crew.starting), ("could not start", crew.missing)):
        if count:
            yield f"{count} {what}"
    if crew.nodes > 1:
        yield f"{crew.nodes} nodes"


def _trials(numbers: tuple[int, ...]) -> str:
    """Return the first few trials by number, as workers may be many."""
    more = ", …" if len(numbers) > _MOST_TRIALS else ""
    return f"({', '.join(map(str, sorted(numbers)[:_MOST_TRIALS]))}{more})"
