"""What the items and the budget of a space can show, before anything is searched."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from rich.table import Table

from evomerge.archive.record import RunRecord
from evomerge.comparison.detectable import items_needed, smallest_gain
from evomerge.comparison.final import expected_optimism
from evomerge.types import Measure

_DISCORDANCE = (0.05, 0.10, 0.20)
_FEW = 100
_PROVEN, _TOLD_APART = 0.025, 0.1  # one-sided: the 95 % interval; what is risked in choosing


@dataclass(frozen=True, kw_only=True)
class Shows:
    """What items can show where two models differ on a share `discordance` of them.

    `proven` is the smallest true gain of the chosen over a parent that report items show with 80 % power,
    `told_apart` the smallest between two finalists on the items that choose (one-sided 10 %), `flatters` by
    how much the best of all candidates is expected to look better than it is on search items if all are
    equally good. Without `discordance` (scores that are not 0 or 1) all are in standard deviations of an item's
    difference between two models.
    """

    discordance: float | None
    proven: float
    told_apart: float
    flatters: float


@dataclass(frozen=True, kw_only=True)
class Prospect:
    """An objective, its items per split, what they can show, and what to know of them."""

    measure: str
    better: str
    task: str
    items: Mapping[str, int]
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
        objectives=tuple(_prospect(m, items[m.task], record.space.budget) for m in record.objectives),
    )


def _prospect(measure: Measure, items: Mapping[str, int], budget: int) -> Prospect:
    graded = measure.aggregate != "mean"
    shares: tuple[float | None, ...] = (None,) if graded else _DISCORDANCE
    return Prospect(
        measure=measure.name,
        better="higher" if measure.higher_is_better else "lower",
        task=measure.task,
        items=items,
        shows=tuple(_shows(share, items, budget) for share in shares) if measure.aggregate != "other" else (),
        notes=tuple(_notes(measure, items)),
    )


def _shows(discordance: float | None, items: Mapping[str, int], budget: int) -> Shows:
    variance = 1.0 if discordance is None else discordance
    choosing = items.get("select") or items["search"]
    return Shows(
        discordance=discordance,
        proven=smallest_gain(items["report"], variance, alpha=_PROVEN),
        told_apart=smallest_gain(choosing, variance, alpha=_TOLD_APART),
        flatters=expected_optimism((variance / items["search"]) ** 0.5, budget),
    )


def _notes(measure: Measure, items: Mapping[str, int]) -> Iterator[str]:
    if measure.aggregate == "other":
        yield (
            f"{measure.name}: lm-eval makes {measure.metric} of all items at once, so a difference between "
            "two models has no interval, and no gain in it can be proven"
        )
    if not items.get("select"):
        yield (
            f"{measure.name}: there are no select items, so the search scores choose the winner too; "
            "give `items` a `select`"
        )
    small = [f"{count} {split}" for split, count in items.items() if count < _FEW]
    if small and measure.aggregate == "mean":
        yield (
            f"{measure.name}: {' and '.join(small)} items are few: a gain of .05 where models differ on 10 % "
            f"of them takes {items_needed(0.05, 0.10, alpha=_PROVEN)} report items to prove"
        )
    elif small:
        yield f"{measure.name}: {' and '.join(small)} items are few: only large gains can be told from noise"


def sentences(found: Prospects) -> Iterator[str]:
    """Yield what would be searched, from what, with how many items."""
    yield f"{found.name}: {found.said['models']}"
    yield f"  {found.said['search']}, budget {found.budget}"
    yield f"  for {found.said['objectives']}"
    if "constraints" in found.said:
        yield f"  under {found.said['constraints']}"
    for name, source in found.sources.items():
        yield f"  source {name}: {source}"
    for task, items in found.items.items():
        yield f"  items of {task}: {', '.join(f'{count} {split}' for split, count in items.items())}"


def objective_table(found: Prospect, budget: int) -> Table:
    """Return what the items of an objective can show of a search with this budget."""
    table = Table(title=f"What the items of {found.measure} can show", title_justify="left")
    table.add_column("where two models differ on" if found.shows and found.shows[0].discordance else "")
    for each in found.shows:
        table.add_column(_share(each.discordance), justify="right")
    choosing = "select" if found.items.get("select") else "search"
    rows = {
        f"smallest gain over a parent that {found.items['report']} report items prove": "proven",
        f"smallest difference that {found.items[choosing]} {choosing} items tell apart": "told_apart",
        f"luck of the best of {budget} candidates on {found.items['search']} search items": "flatters",
    }
    for said, name in rows.items():
        table.add_row(said, *(f"{getattr(each, name):.3f}" for each in found.shows))
    return table


def _share(discordance: float | None) -> str:
    return "s.d. of item differences" if discordance is None else f"{discordance:.0%} of items"
