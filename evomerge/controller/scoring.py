"""What candidates are scored by: the measures of a space as lm-eval knows them, and the items asked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.archive.record import RunRecord
from evomerge.checkpoints.locate import locate_items, locate_tasks
from evomerge.comparison.detectable import smallest_gain
from evomerge.controller.sources import Where, about
from evomerge.errors import CheckpointError, SpaceError, TaskError, unknown
from evomerge.evaluate.items import SPLITS, Wanted, split_items
from evomerge.space import Space
from evomerge.space.load import measure_name
from evomerge.space.schema import Measured
from evomerge.types import Measure, Split

if TYPE_CHECKING:
    from evomerge.evaluate.facts import TaskFacts

_FEW = 100
_DISCORDANCE = 0.15
"""On about so many of the items one of two merges of the same models is right and the other wrong."""


@dataclass(frozen=True, kw_only=True)
class Scoring:
    """What a candidate is scored by, as a run record has it."""

    tasks: str | None
    objectives: tuple[Measure, ...]
    constraints: tuple[Measure, ...]
    held_out: tuple[Measure, ...]
    items: Mapping[str, Mapping[str, list[str]]]
    clusters: Mapping[str, Mapping[str, str]]
    wordings: Mapping[str, str]
    deterministic: bool


def scoring(space: Space, where: Where, near: Path, known: RunRecord | None) -> Scoring:
    """Return what the candidates of a space are scored by.

    Relative paths start from `near`. Raises a `RequestError` if a task, a metric or an item is not there.
    """
    with about(where(("tasks",))):
        tasks = _tasks(space, near, known)
    facts = _facts(space, where, tasks)
    measures = {kind: tuple(_measures(space, kind, where, facts)) for kind in space.measured}
    _check_held_out(measures, where)
    items = _items(space, where, near, facts, known)
    return Scoring(
        tasks=str(tasks) if tasks else None,
        objectives=measures["objectives"],
        constraints=measures["constraints"],
        held_out=measures["held_out"],
        items=items,
        clusters={name: _clusters(task, items[name]) for name, task in facts.items() if task.clusters},
        wordings={name: task.wording for name, task in facts.items()},
        deterministic=all(facts[each.task].deterministic for each in (*space.objectives, *space.constraints)),
    )


def _tasks(space: Space, near: Path, known: RunRecord | None) -> Path | None:
    if space.tasks is None:
        return None
    if known is not None and known.tasks and known.space.tasks == space.tasks and Path(known.tasks).is_dir():
        return Path(known.tasks)
    return locate_tasks(space.tasks, near=near)


def _asked(space: Space) -> Iterator[tuple[str, int, Measured]]:
    """Yield everything that is measured with its place in the space."""
    for kind, measures in space.measured.items():
        for i, measured in enumerate(measures):
            yield kind, i, measured


def _facts(space: Space, where: Where, folder: Path | None) -> Mapping[str, TaskFacts]:
    from evomerge.evaluate.task_library import TaskLibrary  # lm-eval takes seconds to import

    library = TaskLibrary(folder, few_shot=space.few_shot, seed=space.seed)
    facts: dict[str, TaskFacts] = {}
    for kind, i, asked in _asked(space):
        if asked.task not in facts:
            with about(where((kind, i, "task"))):
                facts[asked.task] = library.load(asked.task).facts
    return facts


def _measures(space: Space, kind: str, where: Where, facts: Mapping[str, TaskFacts]) -> Iterator[Measure]:
    for i, asked in enumerate(space.measured[kind]):
        task = facts[asked.task]
        metric = _offered("metric", asked.metric, task.metrics, task, where((kind, i, "metric")))
        yield Measure(
            name=measure_name(space, kind, i),
            task=asked.task,
            metric=metric,
            filter=_offered("filter", asked.filter, task.filters, task, where((kind, i, "filter"))),
            higher_is_better=task.metrics[metric],
            aggregate=task.aggregates[metric],
        )


def _offered(what: str, asked: str | None, known: Iterable[str], task: TaskFacts, place: str) -> str:
    """Return the metric or filter asked for, else the task's first. Raises `TaskError` if there is none."""
    offered = list(known)
    if asked is not None and asked not in offered:
        raise TaskError(f"{place}: task `{task.name}`: {unknown(what, asked, offered)}")
    if not offered:
        raise TaskError(f"{place}: task `{task.name}` has no {what}")
    return asked or offered[0]


def _check_held_out(measures: Mapping[str, Sequence[Measure]], where: Where) -> None:
    """Raise `SpaceError` if a candidate is chosen by what is to be held out: by defaults that meet, say."""
    by = {
        (each.task, each.metric, each.filter): each
        for each in (*measures["objectives"], *measures["constraints"])
    }
    for i, held in enumerate(measures["held_out"]):
        if (other := by.get((held.task, held.metric, held.filter))) is not None:
            raise SpaceError(
                f"{where(('held_out', i))} is {held.metric} of `{held.task}`, which `{other.name}` searches "
                "by, so nothing is held out; leave one out"
            )


def _items(
    space: Space, where: Where, near: Path, facts: Mapping[str, TaskFacts], known: RunRecord | None
) -> dict[str, dict[str, list[str]]]:
    wanted = _wanted(space, where, near, known)
    searched = {measured.task for measured in (*space.objectives, *space.constraints)}
    with about(where(("items",))):
        splits = split_items(
            list(facts.values()), wanted, seed=space.seed, report_only=facts.keys() - searched
        )
    return {task: {str(part): list(items) for part, items in split.items()} for task, split in splits.items()}


def _wanted(space: Space, where: Where, near: Path, known: RunRecord | None) -> Wanted:
    """Return what the space says of items, its files read."""
    named: dict[str, Split] = {}
    counts: dict[Split, int | None] = {}
    for split in SPLITS:
        asked: int | str | None = getattr(space.items, split)
        counts[split] = asked if isinstance(asked, int) else None
        if isinstance(asked, str):
            with about(where(("items", split))):
                for item in _named(asked, split, space, near, known):
                    if (other := named.setdefault(item, split)) != split:
                        raise SpaceError(
                            f"item {item} is named for `{other}` and for `{split}`; leave it in one of them"
                        )
    chosen = frozenset(split for split in SPLITS if isinstance(getattr(space.items, split), str))
    return Wanted(
        search=counts["search"],
        select=counts["select"],
        report=counts["report"],
        named=named,
        chosen=chosen,
    )


def _named(asked: str, split: Split, space: Space, near: Path, known: RunRecord | None) -> Iterable[str]:
    """Return the items that a file names; where it is gone, those that the run began with."""
    try:
        file = locate_items(asked, near=near)
    except CheckpointError:
        if known is None or known.space.items != space.items:
            raise
        return [item for splits in known.items.values() for item in splits[split]]
    return read_hashes(file)


def read_hashes(file: Path) -> tuple[str, ...]:
    """Return the content hashes that a file holds, one to a line. Raises `SpaceError` for other lines."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (UnicodeDecodeError, OSError) as error:
        raise SpaceError(f"the items in {file} cannot be read as text: {error}") from error
    hashes = {number: line.strip() for number, line in enumerate(lines, start=1) if line.strip()}
    for number, text in hashes.items():
        if not re.fullmatch("[0-9a-f]{64}", text):
            raise SpaceError(
                f"line {number} of {file} is no content hash (64 hex digits, as a run.json has them under "
                f"`items`): `{text[:80]}`"
            )
    if not hashes:
        raise SpaceError(f"{file} names no item; name some, one content hash to a line")
    return tuple(dict.fromkeys(hashes.values()))


def _clusters(task: TaskFacts, splits: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Return the text that each item used is about."""
    texts = dict(zip(task.items, task.clusters, strict=True))
    return {item: texts[item] for items in splits.values() for item in items}


def small_task_notes(record: RunRecord) -> list[str]:
    """Return, for each task with few items in a split, a sentence on what these can and cannot show."""
    return [note for task, splits in record.items.items() if (note := _note(record, task, splits))]


def _note(record: RunRecord, task: str, splits: Mapping[str, Sequence[str]]) -> str | None:
    texts = record.clusters.get(task, {})
    sizes = {split: len({texts.get(item, item) for item in items}) for split, items in splits.items()}
    few = {split: size for split, size in sizes.items() if 0 < size < _FEW}
    if not few:
        return None
    kind = "texts" if texts else "items"
    counts = _in_words([f"{size} {split} {kind}" for split, size in few.items()])
    measures = [each for each in (*record.measures, *record.held_out) if each.task == task]
    if any(each.aggregate != "mean" for each in measures):
        return f"task `{task}` has only {counts}: small differences between models do not show on them"
    gains = _in_words([f"{100 * smallest_gain(size, _DISCORDANCE):.0f}" for size in few.values()])
    return (
        f"task `{task}` has only {counts}: two models that disagree on {_DISCORDANCE:.0%} of them are seldom "
        f"told apart if they differ by less than {gains} points"
    )


def _in_words(parts: Sequence[str]) -> str:
    return f"{', '.join(parts[:-1])} and {parts[-1]}" if len(parts) > 1 else parts[0]
