"""A recipe's models on this machine: found, fit to be merged, and the ones the recipe pins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

from evomerge.checkpoints.compatible import check_compatible
from evomerge.checkpoints.digest import digest
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.locate import canonical, locate
from evomerge.errors import CheckpointError, RequestError, unknown
from evomerge.recipe import ModelRef, Recipe

Paths = Mapping[str, str | Path]
"""Folders of models by the recipe's names."""


def check_known(paths: Paths, models: Iterable[str]) -> None:
    """Raise `RequestError` if `paths` has a name that is none of `models`."""
    known = list(models)
    for name in paths:
        if name not in known:
            raise RequestError(f"`--source {name}=…`: {unknown('model', name, known)}")


def open_sources(recipe: Recipe, paths: Paths) -> dict[str, Checkpoint]:
    """Return the models the merge uses, opened: those in `paths`, the others where their sources lead.

    Raises `RequestError` if one is missing or broken, or they cannot be merged with one another.
    """
    opened = {name: open_checkpoint(_folder(name, recipe.models[name], paths)) for name in recipe.used}
    check_compatible(opened)
    return opened


def pinned(recipe: Recipe, sources: Mapping[str, Checkpoint], paths: Paths) -> Recipe:
    """Return the recipe of exactly these sources, with the content and the origin of each.

    The origin is a hub id only where that is known: the hub's cache holds the model, or its content is
    what the recipe says. Raises `RequestError` where it is not.
    """
    models = {
        name: _pinned(name, recipe.models[name], checkpoint, chosen=name in paths)
        for name, checkpoint in sources.items()
    }
    return replace(recipe, models=models)


def _folder(name: str, ref: ModelRef, paths: Paths) -> Path:
    if name not in paths:
        try:
            return locate(ref.source, revision=ref.revision)
        except CheckpointError as error:
            raise CheckpointError(f"{error}; say where it lies with `--source {name}=FOLDER`") from error
    path = Path(paths[name]).absolute()
    if not path.is_dir():
        raise RequestError(f"no model `{name}` at {path}; say where it lies with `--source {name}=FOLDER`")
    return path


def _pinned(name: str, ref: ModelRef, checkpoint: Checkpoint, *, chosen: bool) -> ModelRef:
    found = digest(checkpoint)
    if ref.digest not in (None, found):
        raise RequestError(
            f"the model in {checkpoint.path} is not the `{name}` of the recipe: its content digest is "
            f"{found}, not {ref.digest}"
        )
    if chosen:
        source = str(checkpoint.path) if ref.digest is None else ref.source
    else:
        source = canonical(ref.source, checkpoint.path)
    return replace(ref, source=source, digest=found)
