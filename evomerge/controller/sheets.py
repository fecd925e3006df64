"""What trials scored on the items of one split, whether just now or read back from the run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from evomerge.archive.run import Run, is_scored
from evomerge.types import ItemScores, Measure, Scored


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
