"""Writing a recipe as a checkpoint folder that looks complete only once it is verified."""

from __future__ import annotations

import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from evomerge.archive.files import replace_folder
from evomerge.checkpoints.digest import PROCESSOR_FILES
from evomerge.checkpoints.finite import check_finite
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.tensors import open_library
from evomerge.checkpoints.tokenizer import CARRIED
from evomerge.checkpoints.vocabulary import special_ids, with_special
from evomerge.errors import ExportError, RequestError
from evomerge.evaluate.evaluator import device_named
from evomerge.merge.disk import SHARD_BYTES, write_weights
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Plan
from evomerge.merge.planning import compile_plan
from evomerge.publish.card import Found, model_card, published
from evomerge.publish.sources import Paths, open_sources, pinned
from evomerge.recipe import Recipe, to_yaml

_BESIDE = ("LICENSE", "LICENSE.txt", "LICENSE.md", *PROCESSOR_FILES)
_GENERATION = "generation_config.json"
_RECIPE = "recipe.yaml"
_WRITTEN = ("config.json", "README.md", _RECIPE, _GENERATION, *CARRIED, *_BESIDE)
_WEIGHTS = re.compile(r"model(-\d+-of-\d+)?\.safetensors(\.index\.json)?")
_SPARE_BYTES = 64 << 20

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
) -> Path:
    """Write `recipe` as a checkpoint folder at `target` and return its path.

    `paths` says where the recipe's models lie (default: where their sources lead), `found` what the model
    card tells of the search; `begun` is called when all is checked. The folder is written beside the
    target and renamed once `verify` has accepted it; whatever goes wrong, the target is left as it was.

    Raises `RequestError` if the target exists or would harm a source or a folder to `keep`, if the sources
    do not fit or the disk is too small; `ExportError` from `verify`, or if it cannot be written.
    """
    target = Path(target).absolute()
    _check_target(target, overwrite)
    sources = open_sources(recipe, paths or {}, allow_pickle=allow_pickle)
    _check_apart(target, [*(source.path for source in sources.values()), *keep])
    _check_replaceable(target)
    recipe = pinned(recipe, sources, paths or {})
    plan = compile_plan(recipe, sources)
    _check_disk(target, plan)
    check_finite(sources)
    if begun is not None:
        begun()
    with _beside(target) as staging:
        with _writing(target):
            _write(plan, sources, staging, shard_bytes)
            (staging / _RECIPE).write_text(to_yaml(published(recipe)), encoding="utf-8")
            (staging / "README.md").write_text(model_card(recipe, found), encoding="utf-8")
        if verify is not None:
            verify(staging)
        with _writing(target):
            replace_folder(staging, target)
    return target


def _check_target(target: Path, overwrite: bool) -> None:
    """Raise `RequestError` if a checkpoint cannot be put at `target`."""
    if target.is_symlink():
        raise RequestError(f"{target} is a link; name the folder it leads to")
    if target.exists() and not overwrite:
        raise RequestError(f"{target} exists; choose another folder, or replace it with `--overwrite`")
    if not target.parent.is_dir():
        raise RequestError(f"{target.parent} does not exist; make it first")


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
    for name in (_RECIPE, "config.json"):
        if not (target / name).is_file():
            raise RequestError(
                f"{target} is no checkpoint that evomerge wrote (it has no {name}), so it is not overwritten"
            )
    for entry in sorted(target.iterdir()):
        if entry.name not in _WRITTEN and not _WEIGHTS.fullmatch(entry.name):
            raise RequestError(
                f"{target} holds `{entry.name}`, which evomerge did not write; move it away first"
            )


def _check_disk(target: Path, plan: Plan) -> None:
    free, need = shutil.disk_usage(target.parent).free, plan.nbytes + _SPARE_BYTES
    if free < need:
        raise RequestError(
            f"the checkpoint needs {need / 1e9:.1f} GB, and {target.parent} has {free / 1e9:.1f} GB left"
        )


@contextmanager
def _writing(target: Path) -> Iterator[None]:
    """Turn an `OSError` into an `ExportError`."""
    try:
        yield
    except OSError as error:
        raise ExportError(f"writing {target} failed: {error.strerror or error}") from error


@contextmanager
def _beside(target: Path) -> Iterator[Path]:
    """Give an empty folder beside `target`; it is gone afterwards, unless it was renamed."""
    with _writing(target):
        staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        staging.chmod(0o755)
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _write(plan: Plan, sources: Mapping[str, Checkpoint], folder: Path, shard_bytes: int) -> None:
    """Write weights, configs and tokenizer."""
    library = open_library(sources, plan.models)
    try:
        execution = Execution(plan, library, device=device_named("auto"))
        write_weights(execution, folder, shard_bytes=shard_bytes)
    finally:
        library.close()
    (folder / "config.json").write_text(json.dumps(plan.config, indent=2) + "\n", encoding="utf-8")
    assert plan.tokenizer is not None  # plans of recipes have one
    plan.tokenizer.write(folder)
    template = sources[plan.template].home
    if plan.special is not None:
        _write_generation(folder, template, plan.tokenizer.folder, plan.special)
    for name in _BESIDE if plan.special is not None else (*_BESIDE, _GENERATION):
        if (template / name).is_file():
            shutil.copyfile(template / name, folder / name)


def _write_generation(folder: Path, template: Path, words: Path, special: Mapping[str, Any]) -> None:
    """Write the template's generation config with the special tokens of the model whose words it has."""
    own, theirs = (_table(source / _GENERATION) for source in (template, words))
    if own or theirs:
        content = with_special(own, special_ids(theirs) or special)
        (folder / _GENERATION).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _table(file: Path) -> dict[str, Any]:
    """Return the content of a JSON file, nothing if it is not there."""
    content: dict[str, Any] = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    return content
