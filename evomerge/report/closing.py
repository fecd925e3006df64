"""The end of a search for people: who was chosen, its scores on three sets of items, what it gained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from evomerge.archive.record import RunRecord
from evomerge.archive.run import Run
from evomerge.controller.closing_report import ClosingReport, ReportRow, from_json
from evomerge.errors import RunError
from evomerge.others_words import markdown as as_markdown
from evomerge.others_words import plain
from evomerge.types import Measure, Split

_NONE = "–"
_SPLITS: tuple[Split, ...] = ("report", "select", "search")


def closing_of(run: Run) -> ClosingReport:
    """Return a run's closing report. Raises `RunError` if its search has not ended, or was taken up again."""
    content = run.report()
    again = f"continue it with `evomerge search {run.folder.path / 'space.yaml'} --resume`"
    if content is None:
        raise RunError(
            f"the search of {run.folder.path} has not ended, so nothing was scored on report items yet; "
            f"{again}, or see how far it is with `evomerge front`"
        )
    if content["finished"] != run.finished:
        raise RunError(
            f"the search of {run.folder.path} has gone on since its report was written: it was made of "
            f"{content['finished']} trials, and {run.finished} are finished; {again}, which writes it anew"
        )
    return from_json(content)


@dataclass(frozen=True, kw_only=True)
class Column:
    """One column of the closing table: a measure on the items of a split."""

    measure: Measure
    split: Split
    held_out: bool

    @property
    def head(self) -> str:
        """What stands above it: the first of a measure names it."""
        if self.split != "report":
            return self.split
        return f"{self.measure.name} {self.measure.arrow} {'held out' if self.held_out else 'report'}"

    def cell(self, row: ReportRow) -> str:
        """Return the score of a row, or why there is none."""
        if self.split in row.failed:
            return "failed"
        found: Mapping[Split, Mapping[str, float] | None]
        found = {"report": row.report, "select": row.select, "search": row.search}
        score = (found[self.split] or {}).get(self.measure.name)
        return _NONE if score is None else f"{score:.3f}"


def columns(report: ClosingReport, record: RunRecord) -> tuple[Column, ...]:
    """Return the columns with any score: per measure report, select and search items, held-out ones last."""
    asked = [
        *(Column(measure=m, split=split, held_out=False) for m in record.measures for split in _SPLITS),
        *(Column(measure=m, split="report", held_out=True) for m in record.held_out),
    ]
    return tuple(each for each in asked if any(each.cell(row) != _NONE for row in report.rows))


def closing_table(report: ClosingReport, record: RunRecord) -> Table:
    """Return baselines and finalists with their scores; those on report items stand out."""
    table = Table(title="Scores on report, select and search items", title_justify="left")
    table.add_column("model")
    table.add_column("trial", justify="right")
    shown = columns(report, record)
    for column in shown:
        table.add_column(
            escape(plain(column.head)), justify="right", style="" if column.split == "report" else "dim"
        )
    for row in report.rows:
        cells = [column.cell(row) for column in shown]
        table.add_row(escape(plain(row.title)), str(row.trial), *cells, style="bold" if row.chosen else "")
    return table


def markdown(report: ClosingReport, record: RunRecord) -> str:
    """Return the table and the sentences as Markdown."""
    shown = columns(report, record)
    heads = ["model", "trial", *(as_markdown(column.head) for column in shown)]
    lines = [f"| {' | '.join(heads)} |", f"|---|{'---:|' * (len(shown) + 1)}"]
    for row in report.rows:
        title = as_markdown(row.title)
        name = f"**{title}**" if row.chosen else title
        lines.append(f"| {name} | {row.trial} | {' | '.join(column.cell(row) for column in shown)} |")
    said = [f"- {as_markdown(sentence)}" for sentence in (*headline(report), *details(report, record))]
    return "\n".join([*lines, "", *said])


def headline(report: ClosingReport) -> Iterator[str]:
    """Yield a sentence on each gain, on what was saved, and why there is nothing to export if so."""
    yield from (gain.sentence for gain in report.gains)
    yield from (f"held out: {gain.sentence}" for gain in report.held_out)
    if report.effort.items < report.effort.all_items:
        yield report.effort.sentence
    if why := nothing_found(report):
        yield why


def details(report: ClosingReport, record: RunRecord) -> Iterator[str]:
    """Yield how it was chosen, and how far its search score flattered it."""
    yield f"items: {'; '.join(_counts(record))}"
    if lucky := [name for name in report.chosen if report.decided_on(name) == "search"]:
        yield f"{', '.join(lucky)}: without select items, search scores chose, which flatter the luckiest"
    yield from _finalists(report)
    yield from _shrunken(report)
    for each in report.optimism:
        yield (
            f"{each.measure}: were all {each.candidates} candidates equally good, the best would still look "
            f"{each.expected:.3f} better than it is on {each.items} search items"
        )


def nothing_found(report: ClosingReport) -> str | None:
    """Return the sentence that says why there is no winner, or None if there is one."""
    if report.feasible:
        return None
    missed = ", ".join(report.unmet) or "all constraints at once"
    return f"no candidate meets {missed}; so the front is empty, and there is nothing to export"


def _counts(record: RunRecord) -> Iterator[str]:
    for task, splits in record.items.items():
        counts = ", ".join(f"{len(items)} {split}" for split, items in splits.items() if items)
        yield f"{task} {counts}"


def _finalists(report: ClosingReport) -> Iterator[str]:
    """Yield how many finalists are better than the best parent and the best baseline on select items."""
    groups: dict[tuple[str, str], list[float]] = {}
    for each in report.finalists:
        groups.setdefault((each.measure, each.as_best), []).append(each.p)
    for (measure, rival), found in groups.items():
        shown = sum(p < 0.05 for p in found)
        yield (
            f"{measure}: {shown} of {len(found)} finalists are better than the best {rival} on "
            f"{report.decided_on(measure)} items at the 5 % level (least p {min(found):.2g}, Holm's)"
        )


def _shrunken(report: ClosingReport) -> Iterator[str]:
    """Yield what the search scores of the chosen come to without their luck."""
    for row in report.rows:
        for name in row.chosen_for:
            if name in row.shrunken:
                yield (
                    f"{name}: of trial {row.trial}'s {row.search[name]:.3f} on search items "
                    f"{row.shrunken[name]:.3f} is left once its luck among the candidates is taken off"
                )
