"""Before anything runs: find the sources, check that they fit, ask lm-eval what the tasks offer.

Everything that is wrong with a request is found here, before a run folder is made or a worker started.
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from evomerge.archive.record import RunRecord, provenance, redacted
from evomerge.checkpoints.architecture import Architecture
from evomerge.checkpoints.compatible import check_compatible
from evomerge.checkpoints.digest import digests, file_digest
from evomerge.checkpoints.finite import check_finite
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.language import find_tower
from evomerge.checkpoints.locate import canonical, locate_tasks
from evomerge.checkpoints.measured import check_measured_on
from evomerge.checkpoints.models import places_of
from evomerge.checkpoints.vocabulary import merged_vocabulary
from evomerge.controller.sources import Where, about, open_sources, read_influences
from evomerge.controller.stages import Tell
from evomerge.errors import RecipeError, SpaceError, TaskError, unknown
from evomerge.evaluate.items import split_items
from evomerge.merge.planning import compile_plan
from evomerge.recipe import ModelRef
from evomerge.space import Genome, Space, SpaceFile
from evomerge.space.load import measure_name
from evomerge.space.merge_genes import METHOD
from evomerge.space.schema import Measured
from evomerge.types import Measure

if TYPE_CHECKING:
    from evomerge.evaluate.harness import TaskFacts

_PROBES = 16
_log = logging.getLogger(__name__)


def resolve(
    file: SpaceFile,
    *,
    study: str | None = None,
    storage: str | None = None,
    known: RunRecord | None = None,
    allow_pickle: bool = False,
    tell: Tell = _log.info,
) -> RunRecord:
    """Return the run record of a search of a space; its relative paths start from its file.

    The study is called `study`, else as the space. Sources and tasks that stand in the space as in
    the one of a `known` record are taken from where they lay then. Pickled weights are read only if
    `allow_pickle`. `tell` hears of a checkpoint that is written as a trial of an earlier run is a source.

    Raises a `RequestError` for the first thing that would keep the search from working.
    """
    space, where, near = file.space, file.document.where, file.path.absolute().parent
    scoring = functools.cache(functools.partial(_scoring, space, where, near, known))
    checkpoints, adapts = open_sources(
        space, where, near, known, allow_pickle=allow_pickle, ready=scoring, tell=tell
    )
    structure = _structure(space, checkpoints, where)
    space = _with_template(space, checkpoints)
    with about(where(("sources",))):
        check_finite(checkpoints)
    content = digests(checkpoints)
    models = _references(space, checkpoints, adapts, content, where)
    influence = read_influences(space, where, near, known, checkpoints=checkpoints, content=content)
    genome = Genome(space=space, layers=structure.layers, models=models, influence=influence)
    with about(where(("path",) if space.path else ("merge", "layers"))):
        genes = genome.genes
    if not genes:
        place = where(("path",) if space.path else ("merge",))
        raise SpaceError(f"{place}: nothing to search: {_nothing(space)}")
    with about(where(("path",) if space.path else ("merge",))):
        _check_plans(genome, checkpoints)
    scored = scoring()
    return RunRecord(
        study=study or space.name,
        space=space,
        layers=structure.layers,
        models=models,
        paths=places_of(checkpoints),
        tasks=scored.tasks,
        objectives=scored.objectives,
        constraints=scored.constraints,
        items=scored.items,
        storage=redacted(storage) if storage else None,
        changes=file.changes,
        provenance=provenance(),
        allow_pickle=allow_pickle,
        influence=influence,
    )


def _nothing(space: Space) -> str:
    """Return why a space has no genes, and what would give it some."""
    if space.path is not None:
        return "everything about the path is fixed; give one of its keys a range"
    return "every parameter is fixed; give one in `genes` a range"


def _structure(space: Space, checkpoints: Mapping[str, Checkpoint], where: Where) -> Architecture:
    """Return the structure the models share, each checked against the first."""
    from evomerge.merge.memory import check_known  # transformers takes a second to import

    first, *others = checkpoints
    with about(where(("sources", first))):
        structure = check_compatible({first: checkpoints[first]})
        check_known(structure.model_type)
    for name in others:
        with about(where(("sources", name))):
            pair = {first: checkpoints[first], name: checkpoints[name]}
            check_compatible(pair, by_token=space.tokenizer is not None)
            check_known(checkpoints[name].config["model_type"])
    if not any(find_tower(model.specs, model.config) for model in checkpoints.values()):
        with about(where(("tokenizer",))):
            merged_vocabulary(space.tokenizer, template=first, base=space.merge.base, models=checkpoints)
    return structure


def _with_template(space: Space, checkpoints: Mapping[str, Checkpoint]) -> Space:
    """Return the space with the template it leaves open, where a model sees: so all candidates do."""
    seeing = [name for name, model in checkpoints.items() if find_tower(model.specs, model.config)]
    if space.merge.template is not None or not seeing:
        return space
    return space.model_copy(update={"merge": space.merge.model_copy(update={"template": seeing[0]})})


def _tasks(space: Space, near: Path, known: RunRecord | None) -> Path | None:
    if space.tasks is None:
        return None
    if known is not None and known.tasks and known.space.tasks == space.tasks and Path(known.tasks).is_dir():
        return Path(known.tasks)
    return locate_tasks(space.tasks, near=near)


def _check_plans(genome: Genome, checkpoints: Mapping[str, Checkpoint]) -> None:
    """Plan some candidates of each method. Raises `RecipeError` if most of them cannot be.

    Of a path, all models must fit, however rarely candidates have layers of one.
    """
    for recipe in genome.tour():
        compile_plan(recipe, checkpoints)
    rng = random.Random(0)
    for method in genome.space.merge.methods if genome.space.merges else ("",):
        refusals = []
        for _ in range(_PROBES):
            point = {gene.name: gene.at(rng.random()) for gene in genome.genes}
            try:
                compile_plan(genome.decode({**point, METHOD: method}), checkpoints)
            except RecipeError as error:
                refusals.append(error)
        if len(refusals) > _PROBES / 2:
            raise refusals[0]


def _references(
    space: Space,
    checkpoints: Mapping[str, Checkpoint],
    adapts: Mapping[str, str],
    content: Mapping[str, str],
    where: Where,
) -> dict[str, ModelRef]:
    return {
        name: ModelRef(
            source=canonical(space.sources[name].stated, checkpoint.path),
            revision=space.sources[name].revision,
            digest=content[name],
            adapts=adapts.get(name),
            **_pinned(name, checkpoint, content, where),
        )
        for name, checkpoint in checkpoints.items()
    }


def _pinned(name: str, checkpoint: Checkpoint, content: Mapping[str, str], where: Where) -> dict[str, str]:
    """Return the places and digests of what was measured on a model; `content` are the models' digests."""
    pinned: dict[str, str] = {}
    for kind, measured in checkpoint.statistics.items():
        with about(where(("sources", name, kind))):
            check_measured_on(measured, name, content)
        pinned |= {kind: str(measured.path), f"{kind}_digest": file_digest(measured.path)}
    return pinned


@dataclass(frozen=True, kw_only=True)
class _Scoring:
    """What a candidate is scored by, as a run record has it."""

    tasks: str | None
    objectives: tuple[Measure, ...]
    constraints: tuple[Measure, ...]
    items: Mapping[str, Mapping[str, list[str]]]


def _scoring(space: Space, where: Where, near: Path, known: RunRecord | None) -> _Scoring:
    with about(where(("tasks",))):
        tasks = _tasks(space, near, known)
    facts = _facts(space, where, tasks)
    return _Scoring(
        tasks=str(tasks) if tasks else None,
        objectives=_measures(space, "objectives", where, facts),
        constraints=_measures(space, "constraints", where, facts),
        items=_items(space, where, facts),
    )


def _asked(space: Space) -> Iterator[tuple[str, int, Measured]]:
    """Yield every objective and constraint with its place in the space."""
    for i, objective in enumerate(space.objectives):
        yield "objectives", i, objective
    for i, constraint in enumerate(space.constraints):
        yield "constraints", i, constraint


def _facts(space: Space, where: Where, folder: Path | None) -> Mapping[str, TaskFacts]:
    from evomerge.evaluate.harness import TaskLibrary  # lm-eval takes seconds to import

    library = TaskLibrary(folder, few_shot=space.few_shot, seed=space.seed)
    facts: dict[str, TaskFacts] = {}
    for kind, i, asked in _asked(space):
        if asked.task not in facts:
            with about(where((kind, i, "task"))):
                facts[asked.task] = library.load(asked.task).facts
    return facts


def _measures(space: Space, kind: str, where: Where, facts: Mapping[str, TaskFacts]) -> tuple[Measure, ...]:
    measures = []
    for found, i, asked in _asked(space):
        if found == kind:
            task = facts[asked.task]
            metric = _offered("metric", asked.metric, task.metrics, task, where((kind, i, "metric")))
            chosen = _offered("filter", asked.filter, task.filters, task, where((kind, i, "filter")))
            measures.append(
                Measure(
                    name=measure_name(space, kind, i),
                    task=asked.task,
                    metric=metric,
                    filter=chosen,
                    higher_is_better=task.metrics[metric],
                )
            )
    return tuple(measures)


def _offered(what: str, asked: str | None, known: Iterable[str], task: TaskFacts, place: str) -> str:
    """Return the metric or filter asked for, else the task's first. Raises `TaskError` if there is none."""
    offered = list(known)
    if asked is not None and asked not in offered:
        raise TaskError(f"{place}: task `{task.name}`: {unknown(what, asked, offered)}")
    return asked or offered[0]


def _items(space: Space, where: Where, facts: Mapping[str, TaskFacts]) -> dict[str, dict[str, list[str]]]:
    items = {}
    for name, task in facts.items():
        with about(where(("items",))):
            split = split_items(
                name,
                task.items,
                search=space.items.search,
                report=space.items.report,
                seed=space.seed,
            )
        items[name] = {str(part): list(hashes) for part, hashes in split.items()}
    return items
