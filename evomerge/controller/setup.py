"""Before anything runs: find the sources, check that they fit, ask lm-eval what the tasks offer.

Everything that is wrong with a request is found here, before a folder is made or a worker started.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.archive.record import RunRecord, provenance, redacted
from evomerge.checkpoints.compatible import check_compatible
from evomerge.checkpoints.digest import digest
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.locate import canonical, locate, locate_tasks
from evomerge.errors import SpaceError, TaskError, unknown
from evomerge.evaluate.items import split_items
from evomerge.recipe import ModelRef
from evomerge.space import Genome, Space
from evomerge.space.load import measure_name
from evomerge.space.schema import Measured
from evomerge.types import Measure

if TYPE_CHECKING:
    from evomerge.evaluate.harness import ItemTask, TaskFacts


def resolve(space: Space, *, near: Path, storage: str | None = None) -> RunRecord:
    """Return the run record of a search of `space`; relative paths start from `near`.

    Raises a `RequestError` for the first thing that would keep the search from working.
    """
    used = [*dict.fromkeys([*([space.merge.base] if space.merge.base else []), *space.merged])]
    paths = {
        name: locate(space.sources[name].source, revision=space.sources[name].revision, near=near)
        for name in used
    }
    checkpoints = {name: open_checkpoint(path) for name, path in paths.items()}
    structure = check_compatible(checkpoints)
    models = {
        name: ModelRef(
            source=canonical(space.sources[name].source, paths[name]),
            revision=space.sources[name].revision,
            digest=digest(checkpoint),
        )
        for name, checkpoint in checkpoints.items()
    }
    genome = Genome(space=space, layers=structure.layers, models=models)
    if not genome.genes:
        raise SpaceError("nothing to search: every parameter is fixed; give one in `merge.genes` a range")
    tasks = locate_tasks(space.tasks, near=near) if space.tasks else None
    facts = _facts(space, tasks)
    return RunRecord(
        space=space,
        layers=structure.layers,
        models=models,
        paths={name: str(path) for name, path in paths.items()},
        tasks=str(tasks) if tasks else None,
        objectives=_measures(space, "objectives", facts),
        constraints=_measures(space, "constraints", facts),
        items=_items(space, facts),
        storage=redacted(storage) if storage else None,
        provenance=provenance(),
    )


def _facts(space: Space, folder: Path | None) -> Mapping[str, TaskFacts]:
    from evomerge.evaluate.harness import load_tasks  # lm-eval takes seconds to import

    names = dict.fromkeys(each.task for each in (*space.objectives, *space.constraints))
    tasks: Mapping[str, ItemTask] = load_tasks(names, folder=folder, few_shot=space.few_shot, seed=space.seed)
    return {name: task.facts for name, task in tasks.items()}


def _measures(space: Space, kind: str, facts: Mapping[str, TaskFacts]) -> tuple[Measure, ...]:
    asked = space.objectives if kind == "objectives" else space.constraints
    return tuple(
        _measure(each, measure_name(space, kind, i), facts[each.task]) for i, each in enumerate(asked)
    )


def _measure(asked: Measured, name: str, facts: TaskFacts) -> Measure:
    metric = asked.metric or next(iter(facts.metrics))
    if metric not in facts.metrics:
        raise TaskError(f"task `{facts.name}`: {unknown('metric', metric, facts.metrics)}")
    chosen = asked.filter or facts.filters[0]
    if chosen not in facts.filters:
        raise TaskError(f"task `{facts.name}`: {unknown('filter', chosen, facts.filters)}")
    return Measure(
        name=name,
        task=facts.name,
        metric=metric,
        filter=chosen,
        higher_is_better=facts.metrics[metric],
    )


def _items(space: Space, facts: Mapping[str, TaskFacts]) -> dict[str, dict[str, list[str]]]:
    items = {}
    for name, task in facts.items():
        split = split_items(
            name,
            task.items,
            search=space.items.search,
            report=space.items.report,
            seed=space.seed,
        )
        items[name] = {str(part): list(hashes) for part, hashes in split.items()}
    return items
