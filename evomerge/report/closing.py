"""The closing table of a search, and the sentence on what it gained."""

from __future__ import annotations

from collections.abc import Sequence

from rich.table import Table

from evomerge.controller.closing import ClosingReport, Gain
from evomerge.space.baselines import BASE
from evomerge.types import Measure


def closing_table(report: ClosingReport, measures: Sequence[Measure]) -> Table:
    """Return baselines and winners with their scores on report items, search scores beside them."""
    table = Table(title="Scores on the report items (search items in brackets)", title_justify="left")
    table.add_column("model")
    table.add_column("trial", justify="right")
    for measure in measures:
        table.add_column(f"{measure.name} {measure.arrow}", justify="right")
    for row in report.rows:
        cells = [
            f"{row.report[m.name]:.3f} ({row.search[m.name]:.3f})" if row.report else "failed"
            for m in measures
        ]
        table.add_row(row.label, str(row.trial), *cells, style="bold" if row.best_of else "")
    return table


def nothing_found(report: ClosingReport) -> str | None:
    """Return the sentence that says why there is no winner, or None if there is one."""
    if report.feasible:
        return None
    missed = ", ".join(report.unmet) or "all constraints at once"
    return f"no candidate meets {missed}; so the front is empty, and there is nothing to export"


def gain_sentence(gain: Gain) -> str:
    """Return one sentence on a gain: how much, over whom, how sure, on how many items."""
    if gain.trial == gain.parent:
        return f"{gain.objective}: no candidate did better than the {_model(gain.over)} on the search items"
    head = f"{gain.objective}: trial {gain.trial} against the {_model(gain.over)}: {gain.gain:+.3f}"
    if gain.low is None or gain.high is None:
        return f"{head} on {gain.items} report items"
    verdict = "" if gain.proven else ", worse" if gain.high < 0 else ", not proven"
    return f"{head} [{gain.low:+.3f}, {gain.high:+.3f}] on {gain.items} report items{verdict}"


def _model(label: str) -> str:
    return "base model" if label == BASE else label
