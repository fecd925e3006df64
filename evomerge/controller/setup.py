"""Before anything runs: find the sources, check that they fit, ask lm-eval what the tasks offer.

Everything that is wrong with a request is found here, before a run folder is made or a worker started.
"""

from __future__ import annotations

import functools
import logging
import random
from collections.abc import Mapping

from evomerge.archive.database import redacted
from evomerge.archive.record import RunRecord, provenance
from evomerge.checkpoints.architecture import Architecture
from evomerge.checkpoints.compatible import check_compatible
from evomerge.checkpoints.digest import digests, file_digest
from evomerge.checkpoints.finite import check_finite
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.language import find_tower
from evomerge.checkpoints.locate import canonical
from evomerge.checkpoints.measured import check_measured_on
from evomerge.checkpoints.models import places_of
from evomerge.checkpoints.tied import read_structure
from evomerge.checkpoints.vocabulary import merged_vocabulary
from evomerge.controller.scoring import scoring
from evomerge.controller.sources import Where, about, open_sources, read_influences
from evomerge.controller.stages import Tell
from evomerge.errors import RecipeError, SpaceError
from evomerge.merge.planning import compile_plan
from evomerge.recipe import ModelRef
from evomerge.space import Genome, Space, SpaceFile
from evomerge.space.merge_genes import METHOD

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
    _check_backend(space, where)
    scored = functools.cache(functools.partial(scoring, space, where, near, known))
    checkpoints, adapts = open_sources(
        space, where, near, known, allow_pickle=allow_pickle, ready=scored, tell=tell
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
    found = scored()
    return RunRecord(
        study=study or space.name,
        space=space,
        layers=structure.layers,
        models=models,
        paths=places_of(checkpoints),
        tasks=found.tasks,
        objectives=found.objectives,
        constraints=found.constraints,
        held_out=found.held_out,
        items=found.items,
        clusters=found.clusters,
        wordings=found.wordings,
        deterministic=found.deterministic,
        uniform=uniform(checkpoints),
        storage=redacted(storage) if storage else None,
        changes=file.changes,
        provenance=provenance(),
        allow_pickle=allow_pickle,
        influence=influence,
    )


def _check_backend(space: Space, where: Where) -> None:
    if space.backend == "vllm":
        from evomerge.evaluate.vllm import check_installed  # lm-eval takes seconds to import

        with about(where(("backend",))):
            check_installed()


def _nothing(space: Space) -> str:
    """Return why a space has no genes, and what would give it some."""
    if space.path is not None:
        return "everything about the path is fixed; give one of its keys a range"
    return "every parameter is fixed; give one in `genes` a range"


def _structure(space: Space, checkpoints: Mapping[str, Checkpoint], where: Where) -> Architecture:
    """Return the structure the models share, each checked against the first."""
    from evomerge.merge.loadable import check_loadable  # transformers takes a second to import

    first, *others = checkpoints
    with about(where(("sources", first))):
        structure = check_compatible({first: checkpoints[first]})
        check_loadable(first, checkpoints[first])
    for name in others:
        with about(where(("sources", name))):
            pair = {first: checkpoints[first], name: checkpoints[name]}
            check_compatible(pair, by_token=space.tokenizer is not None)
            check_loadable(name, checkpoints[name])
    if not any(find_tower(model.specs, model.config) for model in checkpoints.values()):
        with about(where(("tokenizer",))):
            merged_vocabulary(space.tokenizer, template=first, base=space.merge.base, models=checkpoints)
    return structure


def uniform(checkpoints: Mapping[str, Checkpoint]) -> bool:
    """Return whether all models have tensors of the same names and shapes, heads tied to embeddings alike."""
    first, *others = (
        (read_structure(model).tied, {name: spec.shape for name, spec in model.specs.items()})
        for model in checkpoints.values()
    )
    return all(each == first for each in others)


def _with_template(space: Space, checkpoints: Mapping[str, Checkpoint]) -> Space:
    """Return the space with the template it leaves open, where a model sees: so all candidates do."""
    seeing = [name for name, model in checkpoints.items() if find_tower(model.specs, model.config)]
    if space.merge.template is not None or not seeing:
        return space
    return space.model_copy(update={"merge": space.merge.model_copy(update={"template": seeing[0]})})


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
