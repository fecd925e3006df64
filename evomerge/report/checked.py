"""What `evomerge check` found, as JSON values and as groups with a heading each."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.table import Table

from evomerge.controller.advice import Advice
from evomerge.controller.check import Findings
from evomerge.controller.dry_run import RACED, DryRun
from evomerge.controller.resources import Need
from evomerge.dispatch.supply import gigabytes
from evomerge.others_words import plain
from evomerge.report.durations import duration
from evomerge.report.prospects import Prospects, objective_table, prospects, sentences
from evomerge.types import Measure


@dataclass(frozen=True, kw_only=True)
class Section:
    """A heading and what stands under it: tables, and sentences as plain text."""

    heading: str
    content: tuple[RenderableType, ...]


def to_json(found: Findings | Sequence[str]) -> dict[str, Any]:
    """Return all of it as JSON values; a space that cannot be searched has `problems` only."""
    if not isinstance(found, Findings):
        return {"problems": list(found)}
    return {
        **asdict(prospects(found.record)),
        "measures": [
            {**asdict(measure), "role": role, "bounds": list(bounds)}
            for role, measure, bounds in _measures(found)
        ],
        "traits": [{**asdict(each), "differs": each.differs} for each in found.traits],
        "licence": asdict(found.licence),
        "workers": found.workers,
        "needs": [asdict(each) for each in found.needs],
        "advice": asdict(found.advice),
        "dry_run": asdict(found.dry_run) if found.dry_run else None,
        "problems": list(found.problems),
        "warnings": list(found.warnings),
    }


def sections(found: Findings) -> Iterator[Section]:
    """Yield the groups of what was found, those that people ask about first at the top."""
    shown = prospects(found.record)
    yield Section(heading="Search", content=tuple(_searched(shown, found.advice)))
    yield Section(heading="Sources", content=(_trait_table(found), _licence(found)))
    yield Section(heading="Tasks", content=(_measure_table(found),))
    yield Section(heading="Memory and disk", content=(_need_table(found.needs), *_basis(found.needs)))
    if found.dry_run is not None:
        yield Section(heading="Time", content=tuple(_times(found.dry_run, found.record.space.budget)))
    yield Section(heading="Smallest gains", content=tuple(_gains(shown)))


def _searched(shown: Prospects, advised: Advice) -> Iterator[str]:
    lines = sentences(shown)
    yield from (line for line in lines if line not in shown.notes and not line.startswith("  on "))
    yield f"  {sampler_sentence(advised)}"


def sampler_sentence(advised: Advice) -> str:
    """Return which sampler a search has, and which one suits it, in a sentence."""
    if advised.sampler == advised.suits:
        chosen = "the default" if advised.default else "as the space says"
        return f"sampler {advised.sampler} ({chosen}) suits: {advised.why}"
    left = ", which is the default" if advised.default else ""
    return f"sampler {advised.sampler}{left}; {advised.suits} may suit better: {advised.why}"


def _trait_table(found: Findings) -> Table:
    """Return the sources side by side; what they share is said once."""
    table = _table("", *found.record.models)
    for trait in found.traits:
        if trait.differs:
            table.add_row(trait.what, *(escape(plain(each)) for each in trait.values.values()))
    for trait in found.traits:
        if not trait.differs:
            said = escape(plain(next(iter(trait.values.values()))))
            table.add_row(trait.what, said, *["same"] * (len(found.record.models) - 1))
    return table


def _licence(found: Findings) -> str:
    return " ".join(found.licence.sentences)


def _measures(found: Findings) -> Iterator[tuple[str, Measure, tuple[str, ...]]]:
    record = found.record
    yield from (("objective", each, ()) for each in record.objectives)
    for each, stated in zip(record.constraints, record.space.constraints, strict=True):
        yield "constraint", each, stated.bounds
    yield from (("held out", each, ()) for each in record.held_out)


def _measure_table(found: Findings) -> Table:
    measures = tuple(_measures(found))
    named = any(measure.name != measure.task for _, measure, _ in measures)
    tasks = ["task"] if named else []
    head = ("measure", "is", *tasks, "metric", "better", "search", "select", "report")
    table = _table(*head, right=len(head) - 3)
    for role, measure, bounds in measures:
        counts = [len(found.record.items[measure.task][split]) for split in ("search", "select", "report")]
        table.add_row(
            escape(plain(measure.name)),
            "\n".join([role, *bounds]),
            *([escape(plain(measure.task))] if named else []),
            escape(plain(measure.metric)),
            "higher" if measure.higher_is_better else "lower",
            *(str(count) if count else "–" for count in counts),
        )
    return table


def _need_table(needs: Sequence[Need]) -> Table:
    table = _table("", "needed", "free", right=1)
    for need in needs:
        style = "red" if need.problem else "yellow" if need.warning else ""
        table.add_row(escape(need.what), gigabytes(need.needed), gigabytes(need.there), style=style)
    return table


def _basis(needs: Sequence[Need]) -> Iterator[str]:
    yield "Estimated from:"
    yield from (f"  {need.what.partition(' (')[0]}: {need.how}" for need in needs)


def _times(run: DryRun, budget: int) -> Iterator[str]:
    which = "the second of two candidates" if run.second else "one candidate, with what is done only once"
    yield (
        f"Measured on {run.device} in this process, {which}: built in {_short(run.build)}, "
        f"{_short(run.per_item)} for each of {run.items} items."
    )
    yield f"A candidate scored on all {run.all_items} search items takes about {_short(run.whole)}."
    count = "1 worker" if run.workers == 1 else f"{run.workers} workers"
    if run.raced:
        yield (
            f"{budget} candidates with {count}: about {duration(run.budget_likely)} if racing asks "
            f"{RACED:.0%} of the items, as it did in searches of the built-in models, and at most about "
            f"{duration(run.budget_most)}."
        )
    else:
        yield f"{budget} candidates with {count}: about {duration(run.budget_most)}, as nothing is raced."
    yield f"Scoring the finalists on select and report items: about {duration(run.closing)} more."
    memory = f"This process had {gigabytes(run.peak_memory)} of memory at its peak"
    gpu = f" and {gigabytes(run.peak_gpu_memory)} of GPU memory" if run.peak_gpu_memory else ""
    yield f"{memory}{gpu}."
    if run.workers > 1:
        yield "Workers that share a processor are slower than one alone, and starting takes seconds more."


def _short(seconds: float) -> str:
    """Return a time that may be a fraction of a second."""
    if seconds < 0.1:
        return f"{1000 * seconds:.1f} ms"
    return f"{seconds:.2f} s" if seconds < 10 else duration(seconds)


def _gains(shown: Prospects) -> Iterator[RenderableType]:
    for each in shown.objectives:
        if each.shows:
            yield objective_table(each, shown.budget)
        yield from each.notes


def _table(*headings: str, right: int | None = None) -> Table:
    """Return an empty table; columns from the one numbered `right` on hold numbers."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for i, heading in enumerate(headings):
        numbers = right is not None and i >= right
        table.add_column(escape(plain(heading)), justify="right" if numbers else "left", overflow="fold")
    return table
