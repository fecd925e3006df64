"""The Pareto front as a table."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from evomerge.archive.run import Run
from evomerge.controller.closing_report import from_json
from evomerge.others_words import markdown as as_markdown
from evomerge.others_words import plain

if TYPE_CHECKING:
    import pandas as pd

_AGAIN = ("report", "select")


def front_frame(run: Run) -> pd.DataFrame:
    """Return the front, best in the first objective first: trial, kind, scores, recipe key.

    Beside each search score stand those on report and select items, of those who have them, and `chosen`
    tells for what a trial was chosen by the latter.
    """
    front = run.front()
    names = [measure.name for measure in run.record.measures]
    content = run.report()
    rows = {row.trial: row for row in (from_json(content).rows if content else ())}
    frame = front[["trial"]].copy()
    frame["kind"] = front["baseline"].fillna("candidate")
    frame["chosen"] = [rows[n].roles if n in rows else "" for n in frame["trial"]]
    for name in names:
        frame[name] = front[name]
        for split in _AGAIN:
            found = [(getattr(rows[n], split) if n in rows else None) or {} for n in frame["trial"]]
            frame[f"{name}_{split}"] = [scores.get(name) for scores in found]
    frame["recipe"] = front["recipe"]
    return frame


def front_table(run: Run, frame: pd.DataFrame) -> Table:
    """Return the front for a terminal; scores on report and select items stand before those searched on."""
    table = Table(title=escape(f"Pareto front of {plain(run.folder.name)}"), title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column("kind")
    keys = []
    for measure in run.record.measures:
        again = [f"{measure.name}_{split}" for split in _AGAIN]
        shown = [key for key in again if frame[key].notna().any()]
        keys += [*shown, measure.name]
        for i, key in enumerate([*shown, measure.name]):
            split = key.rpartition("_")[2] if key in again else "search"
            head = escape(plain(f"{measure.name} {measure.arrow} {split}")) if i == 0 else split
            table.add_column(head, justify="right")
    for row in frame.to_dict("records"):
        scores = [_number(row[key]) for key in keys]
        table.add_row(str(row["trial"]), escape(plain(_kind(str(row["kind"]), str(row["chosen"])))), *scores)
    return table


def _kind(kind: str, chosen: str) -> str:
    if kind == "candidate":
        return chosen or kind
    return f"{kind}, {chosen}" if chosen else kind


def chosen_sentences(run: Run, frame: pd.DataFrame) -> Iterator[str]:
    """Yield who was chosen in the end without being on the front, which is of search scores."""
    content = run.report()
    if content is None:
        return
    report = from_json(content)
    for name, trial in report.chosen.items():
        if trial not in set(frame["trial"]):
            yield f"{name}: trial {trial} was chosen by its {report.decided_on(name)} items"


def markdown(frame: pd.DataFrame) -> str:
    """Return the frame as a Markdown table."""
    head = f"| {' | '.join(as_markdown(str(column)) for column in frame.columns)} |"
    rule = "|" + "---|" * len(frame.columns)
    rows = (
        f"| {' | '.join(_number(v) if isinstance(v, float) else as_markdown(str(v)) for v in row)} |"
        for row in frame.itertuples(index=False)
    )
    return "\n".join([head, rule, *rows])


def _number(value: object) -> str:
    if value is None or value != value:  # NaN is what pandas makes of None
        return "–"
    return f"{float(value):.4f}" if isinstance(value, int | float) else str(value)
