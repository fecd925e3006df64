"""Writing a recipe as a checkpoint folder that looks complete only once it is verified."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from evomerge.archive.files import clear_beside, folder_beside, replace_folder, writing
from evomerge.checkpoints.finite import check_finite
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.licences import CARD
from evomerge.controller.stages import write_missing
from evomerge.errors import RequestError
from evomerge.evaluate.evaluator import device_named
from evomerge.merge.disk import SHARD_BYTES
from evomerge.merge.loadable import check_loadable
from evomerge.merge.model_folder import check_room, is_model_file, write_model
from evomerge.merge.planning import compile_plan
from evomerge.merge.sources import Paths, open_sources, pinned
from evomerge.publish.card import MERGEKIT_FILE, Found, model_card, published
from evomerge.publish.mergekit_recipe import mergekit_recipe
from evomerge.publish.origin import Origin, origins_of
from evomerge.publish.source_cards import About, about
from evomerge.recipe import Recipe, to_yaml
from evomerge.recipe.text import RECIPE_FILE

Verify = Callable[[Path], None]
"""Raises `ExportError` if the checkpoint in a folder is not what it should be."""


def write_checkpoint(
    recipe: Recipe,
    target: str | Path,
    *,
    paths: Paths | None = None,
    found: Found | None = None,
    verify: Verify | None = None,
    keep: Iterable[Path] = (),
    begun: Callable[[], None] | None = None,
    overwrite: bool = False,
    allow_pickle: bool = False,
    shard_bytes: int = SHARD_BYTES,
    name: str | None = None,
) -> Path:
    """Write `recipe` as a checkpoint folder at `target` and return its path.

    `paths` says where the recipe's models lie (default: where their sources lead), `found` what the model
    card tells of the search and `name` what it calls the model (default: as the folder); `begun` is called
    when all is checked. The folder is written beside the target and renamed once `verify` has accepted it;
    whatever goes wrong, the target is left as it was. What an export that was killed left beside the target
    is deleted first.

    Raises `RequestError` if the target exists or would harm a source or a folder to `keep`, if the sources
    do not fit or the disk is too small; `ExportError` from `verify`, or if it cannot be written.
    """
    target = Path(target).absolute()
    _check_place(target)
    with writing(target):
        clear_beside(target)  # before looking how much room there is
    if target.exists() and not overwrite:
        raise RequestError(f"{target} exists; choose another folder, or replace it with `--overwrite`")
    write_missing(recipe, paths or {}, allow_pickle=allow_pickle)
    sources = open_sources(recipe, paths or {}, allow_pickle=allow_pickle)
    _check_apart(target, [*(source.path for source in sources.values()), *keep])
    _check_replaceable(target)
    for source_name, source in sources.items():
        check_loadable(source_name, source)
    recipe = pinned(recipe, sources, paths or {})
    plan = compile_plan(recipe, sources)
    check_room(target.parent, plan)
    check_finite(sources)
    origins = origins_of(recipe, {each: source.path for each, source in sources.items()})
    if begun is not None:
        begun()
    with folder_beside(target) as staging:
        with writing(target):
            write_model(plan, sources, staging, device=device_named("auto"), shard_bytes=shard_bytes)
            theirs = mergekit_recipe(published(recipe), sources[plan.template])
            if theirs is not None:
                (staging / MERGEKIT_FILE).write_text(theirs, encoding="utf-8")
            (staging / RECIPE_FILE).write_text(to_yaml(published(recipe)), encoding="utf-8")
            card = model_card(
                recipe, found, origins=origins, about=_about(recipe, sources, origins),
                name=name or target.name, mergekit=theirs is not None,
            )  # fmt: skip
            (staging / CARD).write_text(card, encoding="utf-8")
        if verify is not None:
            verify(staging)
        with writing(target):
            replace_folder(staging, target)
    return target


def _about(recipe: Recipe, sources: Mapping[str, Checkpoint], origins: Mapping[str, Origin]) -> About:
    """Return what the sources' own cards say."""
    folders = {name: source.path for name, source in sources.items()}
    return about(folders, {name: ref.source for name, ref in recipe.models.items()}, origins)


def _check_place(target: Path) -> None:
    """Raise `RequestError` if a folder cannot be put at `target`, whatever is there."""
    if target.is_symlink():
        raise RequestError(f"{target} is a link; name the folder it leads to")
    if not target.parent.is_dir():
        raise RequestError(f"{target.parent} does not exist; make it first")
    if not os.access(target.parent, os.W_OK | os.X_OK):
        raise RequestError(f"{target} cannot be written: {target.parent} is not writable")


def _check_apart(target: Path, folders: Iterable[Path]) -> None:
    place = target.resolve()
    for folder in folders:
        other = folder.resolve()
        if place.is_relative_to(other) or other.is_relative_to(place):
            raise RequestError(
                f"the target {target} is, holds or lies in {folder}, which the export reads; "
                "choose another folder"
            )


def _check_replaceable(target: Path) -> None:
    """Refuse to replace what evomerge did not write, or what somebody has put beside that since."""
    if not target.exists():
        return
    for name in (RECIPE_FILE, "config.json"):
        if not (target / name).is_file():
            raise RequestError(
                f"{target} is no checkpoint that evomerge wrote (it has no {name}), so it is not overwritten"
            )
    for entry in sorted(target.iterdir()):
        if entry.name not in (RECIPE_FILE, MERGEKIT_FILE, CARD) and not is_model_file(entry.name):
            raise RequestError(
                f"{target} holds `{entry.name}`, which evomerge did not write; move it away first"
            )
