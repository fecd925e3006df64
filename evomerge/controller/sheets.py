"""What trials scored on the items of one split, whether just now or read back from the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from evomerge.archive.run import Run, is_scored
from evomerge.comparison.items import aggregate
from evomerge.types import ItemScores, Measure, Scored, Split


@dataclass(frozen=True, kw_only=True)
class Sheet:
    """A trial's scores by measure, and the items behind them as far as they were kept."""

    scores: Mapping[str, float]
    items: tuple[ItemScores, ...]

    def of(self, measure: Measure) -> ItemScores | None:
        """Return the item scores behind a measure."""
        asked = (measure.task, measure.metric, measure.filter)
        return next((each for each in self.items if (each.task, each.metric, each.filter) == asked), None)


def sheet(scored: Scored) -> Sheet:
    """Return what an evaluation has scored."""
    return Sheet(scores=scored.scores, items=scored.items)


def as_recorded(run: Run, split: Split, scored: Scored) -> Sheet:
    """Return what an evaluation has scored, to the last digit as `recorded` will tell it."""
    told = sheet(scored)
    return replace(told, scores={**told.scores, **_scores(_asked(run, split), told.items)})


def recorded(run: Run, split: Split) -> dict[int, Sheet]:
    """Return what trials have scored on all items of a split, by number, as far as it can be read back.

    Of a measure that is more than its items' scores make up there is no such telling.
    """
    asked = _asked(run, split)
    if any(measure.aggregate == "other" for measure in asked):
        return {}
    whole = {(m.task, m.metric, m.filter): len(run.record.items[m.task][split]) for m in asked}
    return {
        number: Sheet(scores=_scores(asked, items), items=items)
        for number, items in run.item_scores(split).items()
        if whole == {(each.task, each.metric, each.filter): len(each.items) for each in items}
    }


def _asked(run: Run, split: Split) -> list[Measure]:
    """Return what is measured on a split."""
    brief = run.record.brief()
    return [measure for task in run.record.items for measure in brief.asked(task, split)]


def _scores(asked: Sequence[Measure], items: Sequence[ItemScores]) -> dict[str, float]:
    """Return the measures that the items' scores make up."""
    found = {(each.task, each.metric, each.filter): each for each in items}
    return {
        measure.name: aggregate(measure, found[measure.task, measure.metric, measure.filter])
        for measure in asked
        if measure.aggregate != "other"
    }


def searched(run: Run) -> dict[int, Sheet]:
    """Return what every trial that was scored itself on all search items scored there, by number."""
    items = _search_items(run)
    return {
        trial.number: Sheet(scores=trial.user_attrs["scores"], items=items.get(trial.number, ()))
        for trial in run.frozen_trials
        if is_scored(trial)
    }


def _search_items(run: Run) -> dict[int, tuple[ItemScores, ...]]:
    frame = run.items()
    found: dict[int, tuple[ItemScores, ...]] = {}
    keys = ["trial", "task", "metric", "filter"]
    for key, part in frame[frame["split"] == "search"].groupby(keys, sort=False):
        trial, task, metric, filtered = key
        read = ItemScores(
            task=str(task),
            metric=str(metric),
            filter=str(filtered),
            items=tuple(part["item"]),
            scores=tuple(part["score"]),
            weights=tuple(part["weight"]),
        )
        number = int(str(trial))
        found[number] = (*found.get(number, ()), read)
    return found


def for_choosing(run: Run, searched: Mapping[int, Sheet], selected: Mapping[int, Sheet]) -> dict[int, Sheet]:
    """Return by what to choose among trials: select items, or search items of tasks without any."""
    if not selected:
        return dict(searched)
    tasks = {measure.task for measure in run.record.measures}
    without = {task for task in tasks if not run.record.items[task].get("select")}
    found = {}
    for number, again in selected.items():
        before = searched[number]
        items = [each for each in before.items if each.task in without]
        found[number] = Sheet(scores={**before.scores, **again.scores}, items=(*items, *again.items))
    return found
