"""`evomerge.score`: anything that a space's objectives can be asked of, scored as its candidates are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from evomerge.archive.run import Run, open_run
from evomerge.checkpoints.finite import check_finite
from evomerge.checkpoints.locate import RUN_FILE
from evomerge.checkpoints.models import places_of
from evomerge.comparison.single import standard_error
from evomerge.controller.scoring import Scoring, scoring
from evomerge.controller.stages import write_missing
from evomerge.dispatch.job import Job
from evomerge.dispatch.worker import Worker
from evomerge.errors import EvaluationError, RequestError, unknown
from evomerge.evaluate.brief import Brief
from evomerge.evaluate.items import SPLITS
from evomerge.merge.loadable import check_loadable
from evomerge.merge.planning import compile_plan
from evomerge.merge.sources import Paths, check_known, open_sources, pinned, places_in
from evomerge.publish.public import chosen, opened
from evomerge.recipe import Merge, ModelRef, Recipe
from evomerge.space import Space
from evomerge.space.load import SpaceFile, read_space
from evomerge.types import Measure, Scored, Split


@dataclass(frozen=True, kw_only=True)
class Score:
    """One measure of a model: the score, its standard error (None: it has none), and on how many items."""

    measure: Measure
    role: str
    score: float
    error: float | None
    items: int


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """What was scored, on which items, and how."""

    what: str
    split: Split
    scores: tuple[Score, ...]
    seconds: float
    device: str


def score(
    space: str | Path,
    what: str | Path | Run | Recipe,
    *,
    items: Split = "search",
    trial: int | None = None,
    paths: Mapping[str, str | Path] | None = None,
    allow_pickle: bool = False,
) -> Evaluated:
    """Return a model's, recipe's or trial's scores in the measures of a space, as a search would score it.

    `what` is a model (a folder, a hub id, `zoo:NAME` or a source of the space by its name), a recipe or its
    file, or a run or its folder, of which it is the trial of this number (default: the best). `items` are
    those that the space searches on, chooses on or reports on; measures that are held out are only read on
    the last. `paths` gives folders of models by name, where they lie elsewhere.

    Raises a `RequestError` for what cannot be scored, `EvaluationError` if it fails.
    """
    if items not in get_args(Split):
        raise RequestError(unknown("split of items", items, get_args(Split)))
    file = read_space(Path(space), {})
    label, recipe, places = _asked(file, what, trial, paths or {})
    scored_by = scoring(file.space, file.document.where, file.path.absolute().parent, None)
    _check_items(file.space, scored_by, items)
    brief, recipe = _brief(file.space, recipe, places, scored_by, allow_pickle=allow_pickle)
    outcome = Worker(brief).run(Job(trial=0, recipe=recipe, split=items))
    if not isinstance(outcome, Scored):
        reason = getattr(outcome, "reason", "it was not scored")
        raise EvaluationError(f"{label} cannot be scored: {reason}")
    return Evaluated(
        what=label,
        split=items,
        scores=tuple(_scores(scored_by, outcome)),
        seconds=outcome.merge_seconds + outcome.score_seconds,
        device=outcome.device,
    )


def _asked(
    file: SpaceFile, what: str | Path | Run | Recipe, trial: int | None, paths: Paths
) -> tuple[str, Recipe, Paths]:
    """Return what to call it, the recipe that builds it, and where its models lie."""
    found, label = what, str(what)
    if isinstance(what, str | Path):
        path = Path(what)
        if (path / RUN_FILE).is_file():
            found = open_run(path)
        elif path.is_file():
            opened_file = opened(path)
            assert isinstance(opened_file, Recipe)  # a file is no run
            found = opened_file
    if isinstance(found, Run):
        number = chosen(found, trial=trial, best=None, knee=False)
        check_known(paths, found.record.paths)
        return f"trial {number} of {found.folder.path}", found.recipe(number), {**found.record.paths, **paths}
    if trial is not None:
        raise RequestError(f"`--trial` is a trial of a run, and {label} is none")
    if isinstance(found, Recipe):
        check_known(paths, places_in(found))
        return "the recipe" if isinstance(what, Recipe) else label, found, paths
    recipe = _as_it_is(file, str(found))
    check_known(paths, recipe.models)
    return label, recipe, paths


def _as_it_is(file: SpaceFile, model: str) -> Recipe:
    """Return the recipe of one model: a source of the space by name, or one that stands elsewhere."""
    space, near = file.space, file.path.absolute().parent
    name, source, revision = "model", model, None
    if model in space.sources and not Path(model).exists():
        entry = space.sources[model]
        if entry.source is None or entry.adapts is not None:
            raise RequestError(
                f"`{model}` of {file.path} is no whole model; export it, and evaluate the folder "
                "that it is written to"
            )
        name, source, revision = model, entry.source, entry.revision
        beside = near / Path(source).expanduser()
        source = str(beside) if beside.is_dir() else source
    ref = ModelRef(source=source, revision=revision)
    merge = Merge(method="linear", sources=(name,))
    return Recipe(models={name: ref}, merges={"merged": merge}, dtype=space.dtype)


def _check_items(space: Space, by: Scoring, split: Split) -> None:
    if not any(splits[split] for splits in by.items.values()):
        raise RequestError(
            f"the space `{space.name}` has no {split} items; give `items` some, or choose other `--items`"
        )


def _brief(
    space: Space, recipe: Recipe, places: Paths, by: Scoring, *, allow_pickle: bool
) -> tuple[Brief, Recipe]:
    """Return what an evaluator must know, and the recipe with its models pinned; all is checked here."""
    write_missing(recipe, places, allow_pickle=allow_pickle)
    sources = open_sources(recipe, places, allow_pickle=allow_pickle)
    for name, source in sources.items():
        check_loadable(name, source)
    recipe = pinned(recipe, sources, places)
    compile_plan(recipe, sources)
    check_finite(sources)
    brief = Brief(
        checkpoints=places_of(sources),
        tasks=by.tasks,
        measures=(*by.objectives, *by.constraints, *by.held_out),
        held_out=tuple(measure.name for measure in by.held_out),
        items={task: {each: tuple(splits[each]) for each in SPLITS} for task, splits in by.items.items()},
        backend=space.backend,
        batch_size=space.batch_size,
        threads=space.threads,
        few_shot=space.few_shot,
        seed=space.seed,
        adapts={
            name: ref.adapts
            for name, ref in recipe.models.items()
            if name in sources and ref.adapts is not None
        },
        allow_pickle=allow_pickle,
    )
    return brief, recipe


def _scores(by: Scoring, scored: Scored) -> list[Score]:
    """Return the scores in the order of the space, each with its standard error."""
    found = []
    for role in ("objectives", "constraints", "held_out"):
        for measure in getattr(by, role):
            if measure.name not in scored.scores:
                continue
            items = next(
                each
                for each in scored.items
                if (each.task, each.metric, each.filter) == (measure.task, measure.metric, measure.filter)
            )
            error = standard_error(measure, items, clusters=by.clusters.get(measure.task))
            found.append(
                Score(
                    measure=measure,
                    role=role.removesuffix("s").replace("_", "-"),
                    score=scored.scores[measure.name],
                    error=error,
                    items=len(items.items),
                )
            )
    return found
