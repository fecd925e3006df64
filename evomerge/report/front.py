"""The Pareto front as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from evomerge.archive.run import Run

if TYPE_CHECKING:
    import pandas as pd


def front_frame(run: Run) -> pd.DataFrame:
    """Return the front, best in the first objective first: trial, kind, scores, report scores, recipe key."""
    front = run.front()
    names = [measure.name for measure in run.record.measures]
    frame = front[["trial", *names]].copy()
    frame.insert(1, "kind", front["baseline"].fillna("candidate"))
    reported = {row["trial"]: row["report"] for row in (run.report() or {"rows": []})["rows"]}
    for name in names:
        frame[f"{name}_report"] = [(reported.get(n) or {}).get(name) for n in frame["trial"]]
    frame["recipe"] = front["recipe"]
    return frame


def front_table(run: Run, frame: pd.DataFrame) -> Table:
    """Return the front for a terminal; scores on report items stand beside those searched on."""
    table = Table(title=f"Pareto front of {run.folder.name}", title_justify="left")
    table.add_column("trial", justify="right")
    table.add_column("kind")
    for measure in run.record.measures:
        table.add_column(f"{measure.name} {measure.arrow}", justify="right")
        table.add_column("on report", justify="right")
    for row in frame.to_dict("records"):
        cells = [
            _number(row[key])
            for measure in run.record.measures
            for key in (measure.name, f"{measure.name}_report")
        ]
        table.add_row(str(row["trial"]), str(row["kind"]), *cells)
    return table


def markdown(frame: pd.DataFrame) -> str:
    """Return the frame as a Markdown table."""
    head = f"| {' | '.join(map(str, frame.columns))} |"
    rule = "|" + "---|" * len(frame.columns)
    rows = (
        f"| {' | '.join(_number(v) if isinstance(v, float) else str(v) for v in row)} |"
        for row in frame.itertuples(index=False)
    )
    return "\n".join([head, rule, *rows])


def _number(value: object) -> str:
    if value is None or value != value:  # NaN is what pandas makes of None
        return "–"
    return f"{float(value):.4f}" if isinstance(value, int | float) else str(value)
