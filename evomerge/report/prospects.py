"""What the items and the budget of a space can show, before anything is searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.markup import escape
from rich.table import Table

from evomerge.archive.record import RunRecord
from evomerge.comparison.detectable import items_needed, smallest_gain
from evomerge.comparison.final import expected_optimism
from evomerge.controller.scoring import small_task_notes
from evomerge.others_words import plain
from evomerge.types import Measure

_DISCORDANCE = (0.05, 0.10, 0.20)
_GAIN = 0.05
_PROVEN, _TOLD_APART = 0.025, 0.1  # one-sided: the 95 % interval; what is risked in choosing


@dataclass(frozen=True, kw_only=True)
class Shows:
    """What items can show where two models differ on a share `discordance` of them.

    `proven` is the smallest true gain of the chosen over a parent that report items show with 80 % power,
    `needed` how many of them a gain of .05 takes, `told_apart` the smallest difference between two finalists
    on the items that choose (one-sided 10 %), `flatters` by how much the best of all candidates is expected
    to look better than it is on search items if all are equally good. Without `discordance` (scores that are
    not 0 or 1) all are in standard deviations of an item's difference between two models.
    """

    discordance: float | None
    proven: float
    needed: int | None
    told_apart: float
    flatters: float


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """An objective, what its items can show, and what to know of them.

    `sizes` counts its items per split, or the texts they are about where several are about one.
    """

    measure: str
    better: str
    sizes: Mapping[str, int]
    shows: tuple[Shows, ...]
    notes: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Prospects:
    """A space that can be searched, and what a search of it can show.

    `said` has what is searched in a few phrases; `items` counts the items of every task and split.
    """

    name: str
    said: Mapping[str, str]
    sources: Mapping[str, str]
    genes: tuple[str, ...]
    sampler: str
    budget: int
    items: Mapping[str, Mapping[str, int]]
    objectives: tuple[Prospect, ...]
    notes: tuple[str, ...]


def prospects(record: RunRecord) -> Prospects:
    """Return what a search with this record can show."""
    items = {
        task: {split: len(found) for split, found in splits.items() if found}
        for task, splits in record.items.items()
    }
    return Prospects(
        name=record.space.name,
        said=record.summary(),
        sources={name: ref.source for name, ref in record.models.items()},
        genes=tuple(gene.name for gene in record.genome.genes),
        sampler=record.space.sampler_choice.name,
        budget=record.space.budget,
        items=items,
        objectives=tuple(_prospect(record, measure) for measure in record.objectives),
        notes=tuple(small_task_notes(record)),
    )


def _prospect(record: RunRecord, measure: Measure) -> Prospect:
    sizes = _sizes(record, measure.task)
    shares: tuple[float | None, ...] = _DISCORDANCE if measure.aggregate == "mean" else (None,)
    none = measure.aggregate == "other"
    return Prospect(
        measure=measure.name,
        better="higher" if measure.higher_is_better else "lower",
        sizes=sizes,
        shows=() if none else tuple(_shows(share, sizes, record.space.budget) for share in shares),
        notes=tuple(_notes(measure, sizes)),
    )


def _sizes(record: RunRecord, task: str) -> dict[str, int]:
    """Return how many observations each split of a task has: items, or the texts they are about."""
    texts = record.clusters.get(task, {})
    counts = {
        split: len({texts.get(item, item) for item in items}) for split, items in record.items[task].items()
    }
    return {split: count for split, count in counts.items() if count}


def _shows(discordance: float | None, sizes: Mapping[str, int], budget: int) -> Shows:
    variance = 1.0 if discordance is None else discordance
    return Shows(
        discordance=discordance,
        proven=smallest_gain(sizes["report"], variance, alpha=_PROVEN),
        needed=None if discordance is None else items_needed(_GAIN, discordance, alpha=_PROVEN),
        told_apart=smallest_gain(sizes.get("select", sizes["search"]), variance, alpha=_TOLD_APART),
        flatters=expected_optimism((variance / sizes["search"]) ** 0.5, budget),
    )


def _notes(measure: Measure, sizes: Mapping[str, int]) -> Iterator[str]:
    if measure.aggregate == "other":
        yield (
            f"{measure.name}: lm-eval makes {measure.metric} of all items at once, so a difference between "
            "two models has no interval, and no gain in it can be proven"
        )
    if "select" not in sizes:
        yield (
            f"{measure.name}: there are no select items, so the search scores choose the winner too; "
            "give `items` a `select`"
        )


def sentences(found: Prospects) -> Iterator[str]:
    """Yield what would be searched, from what, on how many items, and what to know of these."""
    said = found.said
    yield f"{found.name}: {said['models']}"
    yield f"  {said['search']}, budget {found.budget}"
    yield f"  for {said['objectives']}"
    yield from (f"  {key} {said[key]}" for key in ("held out",) if key in said)
    yield from (f"  under {said[key]}" for key in ("constraints",) if key in said)
    yield f"  on {said['items']}"
    yield f"  with {said['thrift']}"
    yield from (f"  {name} is {source}" for name, source in found.sources.items())
    yield from found.notes


def objective_table(found: Prospect, budget: int) -> Table:
    """Return what the items of an objective can show of a search with this budget."""
    table = Table(title=escape(plain(f"What the items of {found.measure} can show")), title_justify="left")
    table.add_column("where two models differ on" if found.shows and found.shows[0].discordance else "")
    for each in found.shows:
        table.add_column(_share(each.discordance), justify="right")
    choosing = "select" if "select" in found.sizes else "search"
    rows = {
        f"smallest gain over a parent that {found.sizes['report']} report items prove": "proven",
        f"report items that a gain of {_GAIN:g} takes": "needed",
        f"smallest difference that {found.sizes[choosing]} {choosing} items tell apart": "told_apart",
        f"luck of the best of {budget} candidates on {found.sizes['search']} search items": "flatters",
    }
    for said, name in rows.items():
        values = [getattr(each, name) for each in found.shows]
        if any(value is not None for value in values):
            table.add_row(said, *(f"{v:.3f}" if isinstance(v, float) else str(v) for v in values))
    return table


def _share(discordance: float | None) -> str:
    return "s.d. of item differences" if discordance is None else f"{discordance:.0%} of items"
