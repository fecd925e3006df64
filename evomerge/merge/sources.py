"""A recipe's models on this machine: found, fit to be merged, and the ones the recipe pins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from evomerge import plugins
from evomerge.checkpoints.adapters import adapted_by, check_base, check_whole
from evomerge.checkpoints.compatible import check_compatible, check_stackable
from evomerge.checkpoints.digest import digests, file_digest
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.locate import canonical, locate, locate_statistics
from evomerge.checkpoints.measured import Measured, check_measured_on, statistics_name
from evomerge.checkpoints.models import open_models, with_statistics
from evomerge.errors import CheckpointError, RequestError, unknown
from evomerge.merge.method import statistic_of
from evomerge.recipe import ModelRef, Recipe
from evomerge.types import Statistic

Paths = Mapping[str, str | Path]
"""Folders of models by the recipe's names, and statistics files of theirs (`NAME:fisher`)."""


def check_known(paths: Paths, models: Iterable[str]) -> None:
    """Raise `RequestError` if `paths` has a name that is none of `models`."""
    known = list(models)
    for name in paths:
        if name not in known:
            raise RequestError(f"`--source {name}=…`: {unknown('model', name, known)}")


def places_in(recipe: Recipe) -> list[str]:
    """Return the names of the recipe's models and of their statistics, as `paths` may have them."""
    measured = [statistics_name(name, kind) for name, ref in recipe.models.items() for kind in ref.measured]
    return [*recipe.models, *measured]


def open_sources(recipe: Recipe, paths: Paths, *, allow_pickle: bool = False) -> dict[str, Checkpoint]:
    """Return the models the recipe uses, opened: those in `paths`, the others where their sources lead.

    Raises `RequestError` if one is missing or broken, or they cannot be merged with one another.
    """
    folders = {
        name: _folder(name, recipe.models[name], paths, allow_pickle=allow_pickle) for name in recipe.used
    }
    adapts: dict[str, str] = {}
    for name, folder in folders.items():
        over = adapted_by(name, folder, recipe.models[name].adapts, recipe.base_of(name))
        if over is not None:
            check_whole(name, over, folders[over])
            adapts[name] = over
    opened = open_models(folders, adapts, allow_pickle=allow_pickle)
    for name, over in adapts.items():
        if recipe.models[name].adapts is None:
            check_base(name, folders[name], over, recipe.models[over].source, opened[over])
    by_token = recipe.tokenizer is not None
    if recipe.path is not None:
        check_stackable(opened, by_token=by_token)
    for part in recipe.parts:
        if part not in recipe.merges:
            continue
        read = recipe.with_adapted(recipe.read_by(part))
        check_compatible({name: opened[name] for name in read}, by_token=by_token)
    for name, files in _all_statistics(recipe, paths).items():
        opened[name] = with_statistics(opened[name], name, files)
    return opened


def pinned(recipe: Recipe, sources: Mapping[str, Checkpoint], paths: Paths) -> Recipe:
    """Return the recipe of exactly these sources, with the content and the origin of each.

    The origin is a hub id only where that is known: the hub's cache holds the model, or its content is
    what the recipe says. Raises `RequestError` where it is not.
    """
    content = digests(sources)
    models = {
        name: _pinned(name, recipe.models[name], checkpoint, content, chosen=name in paths)
        for name, checkpoint in sources.items()
    }
    for name, checkpoint in sources.items():
        if checkpoint.adaptation is not None and models[name].adapts is None:
            models[name] = replace(models[name], adapts=recipe.base_of(name))
    return replace(recipe, models=models)


def _folder(name: str, ref: ModelRef, paths: Paths, *, allow_pickle: bool) -> Path:
    if name not in paths:
        try:
            return locate(ref.source, revision=ref.revision, allow_pickle=allow_pickle)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; say where it lies with `--source {name}=FOLDER`") from error
    path = Path(paths[name]).absolute()
    if not path.is_dir():
        raise RequestError(f"no model `{name}` at {path}; say where it lies with `--source {name}=FOLDER`")
    return path


def _all_statistics(recipe: Recipe, paths: Paths) -> dict[str, dict[str, Path]]:
    """Return the statistics files that the merges need, by the sources on which they were measured."""
    found: dict[str, dict[str, Path]] = {}
    for merge in recipe.merges.values():
        statistic = statistic_of(plugins.load("methods", merge.method))
        for name in merge.sources if statistic else ():
            if name not in recipe.models:
                continue  # a merge, on which nothing is measured: planning says so
            files = _statistics(name, recipe.models[name].informed_by(statistic), paths)
            found[name] = found.get(name, {}) | files
    return found


def _statistics(name: str, ref: ModelRef, paths: Paths) -> dict[str, Path]:
    """Return the statistics files of a model: those in `paths`, the others where the recipe says."""
    found = {}
    for kind, (path, _) in ref.measured.items():
        key = statistics_name(name, kind)
        try:
            found[key] = locate_statistics(str(paths.get(key, path)))
        except CheckpointError as error:
            raise CheckpointError(f"{error}; say where it lies with `--source {key}=FILE`") from error
    return found


def _pinned(
    name: str, ref: ModelRef, checkpoint: Checkpoint, content: Mapping[str, str], *, chosen: bool
) -> ModelRef:
    found = content[name]
    if ref.digest not in (None, found):
        raise RequestError(
            f"the model in {checkpoint.path} is not the `{name}` of the recipe: its content digest is "
            f"{found}, not {ref.digest}"
        )
    if chosen:
        source = str(checkpoint.path) if ref.digest is None else ref.source
    else:
        source = canonical(ref.source, checkpoint.path)
    ref = replace(ref, source=source, digest=found)
    for kind, measured in checkpoint.statistics.items():
        check_measured_on(measured, name, content)
        ref = _measured(name, ref, kind, measured)
    return ref


def _measured(name: str, ref: ModelRef, kind: Statistic, measured: Measured) -> ModelRef:
    """Return `ref` with the statistics file's place and content, which must be what it pins."""
    found, (_, pinned) = file_digest(measured.path), ref.measured[kind]
    if pinned not in (None, found):
        raise RequestError(
            f"the statistics in {measured.path} are not the {kind} of `{name}` in the recipe: their content "
            f"digest is {found}, not {pinned}"
        )
    return replace(ref, **{kind: str(measured.path), f"{kind}_digest": found})
