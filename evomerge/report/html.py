"""The report as one HTML file: it opens from the disk, runs no script and asks no network (ADR 29)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from evomerge.archive.files import write_text
from evomerge.archive.run import Run
from evomerge.controller.closing_report import ClosingReport, from_json
from evomerge.errors import RequestError, RunError
from evomerge.others_words import plain
from evomerge.recipe import to_yaml
from evomerge.report import accounting, provenance, story
from evomerge.report.closing import details
from evomerge.report.figures.coefficients import heat_maps
from evomerge.report.figures.curve import curves
from evomerge.report.figures.drawing import Figure
from evomerge.report.figures.forest import forests
from evomerge.report.figures.importance import importance_figure, importances
from evomerge.report.figures.parallel import parallel
from evomerge.report.figures.pareto import fronts
from evomerge.report.standings import standings

REPORT_FILE = "report.html"
_TEMPLATE = "page.html"


def write_page(run: Run, target: Path | None = None) -> Path:
    """Write the report to a file, into the run folder if none is named, whole or not at all.

    Raises `RunError` if it cannot be written there.
    """
    place = target or run.folder.path / REPORT_FILE
    content = page(run)
    try:
        write_text(place, content)
    except OSError as error:
        raise RunError(
            f"the report {place} cannot be written: {error.strerror}; name another file with `--html FILE`"
        ) from error
    return place


def page(run: Run) -> str:
    """Return the report of a run, finished or not."""
    template = (files("evomerge.report") / _TEMPLATE).read_text(encoding="utf-8")
    rules = Environment(
        autoescape=True, undefined=StrictUndefined, finalize=_tamed, trim_blocks=True, lstrip_blocks=True
    )
    return rules.from_string(template).render(_content(run))


def _tamed(value: Any) -> Any:
    """Return others' words without what steers the direction or place of text; markup is our own."""
    return plain(value) if type(value) is str else value


def _content(run: Run) -> dict[str, Any]:
    written = run.report()
    report = from_json(written) if written is not None else None
    found = standings(run, report)
    importance = importances(run)
    chosen = _chosen(run, report)
    genes = [importance_figure(each) for each in importance]
    return {
        "name": run.folder.name,
        "record": run.record,
        "report": report,
        "sentences": story.sentences(run, report, found),
        "warnings": list(story.warnings(run, report)),
        "standings": found,
        "forests": forests(found),
        "details": list(details(report, run.record)) if report is not None else [],
        "curves": curves(run),
        "fronts": fronts(run, report),
        "winners": [_winner(run, title, number) for title, number in chosen],
        "importance": genes,
        "strands": parallel(run, importance, [number for _, number in chosen]),
        "ended": list(accounting.ended(run)),
        "spent": list(accounting.spent(run)),
        "failures": accounting.failures(run),
        "facts": list(provenance.facts(run)),
        "sources": list(provenance.sources(run)),
        "tasks": list(provenance.tasks(run)),
        "space": _lines(provenance.space_text(run)),
    }


def _chosen(run: Run, report: ClosingReport | None) -> list[tuple[str, int]]:
    """Return what each chosen trial was chosen for, with its number; the best so far if none was."""
    if report is not None and report.chosen:
        return [(f"{row.title} (trial {row.trial})", row.trial) for row in report.rows if row.chosen]
    if not run.archive.front:
        return []
    best = {run.best(measure.name): measure.name for measure in reversed(run.record.objectives)}
    return [(f"best {name} so far (trial {number})", number) for number, name in reversed(best.items())]


@dataclass(frozen=True, kw_only=True)
class _Winner:
    """A chosen trial: what it was chosen for, its figures and recipe, or why there are none."""

    title: str
    figures: Sequence[Figure] = ()
    recipe: Markup | None = None
    why_not: str | None = None


def _winner(run: Run, title: str, number: int) -> _Winner:
    try:
        recipe = run.recipe(number)
    except RequestError as error:  # another evomerge decoded it, or a plug-in is gone
        return _Winner(title=title, why_not=str(error))
    return _Winner(title=title, figures=heat_maps(recipe, run.record.layers), recipe=_lines(to_yaml(recipe)))


def _lines(text: str) -> Markup:
    """Return a text of several lines, each of them only text."""
    return Markup("\n").join(plain(line) for line in text.split("\n"))
