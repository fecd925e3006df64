"""Notes in Markdown: what a run is, how to read what is shown of it, and what its chosen trials gained."""

from __future__ import annotations

from collections.abc import Iterator

from evomerge.archive.folder import RunFolder
from evomerge.archive.record import RunRecord
from evomerge.controller.closing_report import ClosingReport, ReportRow
from evomerge.others_words import code, markdown
from evomerge.report.closing import details, headline


def study_note(folder: RunFolder, record: RunRecord, report: ClosingReport | None, finished: int) -> str:
    """Return what explains a run to whoever opens the dashboard; `finished` counts trials that are over."""
    return "\n".join(_study_note(folder, record, report, finished)) + "\n"


def _study_note(
    folder: RunFolder, record: RunRecord, report: ClosingReport | None, finished: int
) -> Iterator[str]:
    yield f"# {markdown(folder.name)}\n"
    for what, said in record.summary().items():
        yield f"- **{what}**: {markdown(said)}"
    yield "\n## What came of it\n"
    if report is None:
        yield f"The search has not ended: {finished} of {record.space.budget} candidates are finished, and"
        yield "nothing was scored on report items yet. The best search score flatters the luckiest candidate."
    else:
        if report.finished != finished:
            yield f"The search has gone on since: this was told of {report.finished} trials.\n"
        for name, trial in report.chosen.items():
            yield f"- chosen for **{markdown(name)}**: trial {trial}"
        if report.knee is not None:
            yield f"- the most balanced: trial {report.knee}"
        yield from (f"- {markdown(sentence)}" for sentence in headline(report))
        yield "\n## How it was chosen\n"
        yield from (f"- {markdown(sentence)}" for sentence in details(report, record))
    yield from _reading(record)
    yield f"\n{code(f'evomerge report {folder.path}')} writes all of it as a page."


def _reading(record: RunRecord) -> Iterator[str]:
    yield "\n## How to read this page\n"
    yield "- Values, plots and the best trial are of *search* items, by which candidates were bred. What to"
    yield "  expect of a model is its score on *report* items, among the attributes of the chosen trials."
    yield "- *Complete* trials were scored on all search items, or are equal to one that was."
    yield "- *Pruned* trials were given up early: they have estimates, which stand among their attributes."
    if record.constraints:
        yield "  So have those that miss a constraint, as this dashboard would take them for the best."
    yield "- Each trial has its recipe as an artifact, to download and give to `evomerge export`."
    yield "- Nothing can be changed here: this page is made from the run folder, and never writes to it."


def trial_note(row: ReportRow, report: ClosingReport) -> str:
    """Return what is to say of a baseline or finalist: what it was chosen for, and its gains."""
    lines = [f"**{markdown(row.title)}**\n"]
    gains = [gain for gain in (*report.gains, *report.held_out) if gain.trial == row.trial]
    lines += [f"- {markdown(gain.sentence)}" for gain in gains]
    for split, scores in (("report", row.report), ("select", row.select), ("search", row.search)):
        if scores:
            told = ", ".join(f"{name} {score:.4f}" for name, score in scores.items())
            lines.append(f"- on {split} items: {markdown(told)}")
    return "\n".join(lines) + "\n"
