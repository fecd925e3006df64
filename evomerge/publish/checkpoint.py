"""Writing a recipe as a checkpoint folder that looks complete only once it is verified."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from evomerge.checkpoints.digest import digest
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.locate import locate
from evomerge.checkpoints.tensors import open_library
from evomerge.errors import ExportError, RequestError
from evomerge.evaluate.evaluator import device_named
from evomerge.merge.disk import SHARD_BYTES, write_weights
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Plan, compile_plan
from evomerge.publish.card import model_card, published
from evomerge.recipe import Recipe, to_yaml

_CARRIED = (
    "generation_config.json", "chat_template.jinja", "chat_template.json", "tokenizer.json",
    "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "tokenizer.model",
    "vocab.json", "vocab.txt", "merges.txt", "spiece.model", "LICENSE", "LICENSE.txt", "LICENSE.md",
)  # fmt: skip
_SPARE_BYTES = 64 << 20

Verify = Callable[[Path], None]
"""Raises `ExportError` if the checkpoint in a folder is not what it should be."""


def export(
    recipe: Recipe,
    target: str | Path,
    *,
    paths: Mapping[str, str | Path] | None = None,
    card: str | None = None,
    verify: Verify | None = None,
    overwrite: bool = False,
    shard_bytes: int = SHARD_BYTES,
) -> Path:
    """Write `recipe` as a checkpoint folder at `target` and return its path.

    `paths` says where the recipe's models lie (default: where their sources lead). The folder is
    written beside the target and renamed once `verify` has accepted it; whatever goes wrong, the target
    is left as it was.

    Raises `RequestError` if the target exists or the disk is too small, `ExportError` from `verify`.
    """
    target = Path(target).absolute()
    check_target(target, overwrite)
    checkpoints = _open(recipe, paths or {})
    plan = compile_plan(recipe, checkpoints)
    _check_disk(target, plan)
    staging = Path(tempfile.mkdtemp(prefix=f".{target.name}.partial-", dir=target.parent))
    try:
        staging.chmod(0o755)
        _write(plan, checkpoints, staging, shard_bytes)
        (staging / "recipe.yaml").write_text(to_yaml(published(recipe)), encoding="utf-8")
        (staging / "README.md").write_text(card or model_card(recipe), encoding="utf-8")
        if verify is not None:
            verify(staging)
        _move(staging, target)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def check_target(target: Path, overwrite: bool) -> None:
    """Raise `RequestError` if a checkpoint cannot be put at `target`."""
    if target.exists() and not overwrite:
        raise RequestError(f"{target} exists; choose another folder, or replace it with `--overwrite`")
    if overwrite and target.exists() and not (target / "config.json").is_file():
        raise RequestError(f"{target} is not a checkpoint, so it is not overwritten")
    if not target.parent.is_dir():
        raise RequestError(f"{target.parent} does not exist; make it first")


def _open(recipe: Recipe, paths: Mapping[str, str | Path]) -> dict[str, Checkpoint]:
    """Return the recipe's models, each with the content the recipe pins."""
    opened = {}
    for name, ref in recipe.models.items():
        path = Path(paths[name]) if name in paths else locate(ref.source, revision=ref.revision)
        opened[name] = open_checkpoint(path)
        if ref.digest is not None and digest(opened[name]) != ref.digest:
            raise RequestError(
                f"the model in {path} is not the `{name}` of the recipe: its content digest is "
                f"{digest(opened[name])}, not {ref.digest}"
            )
    return opened


def _check_disk(target: Path, plan: Plan) -> None:
    free, need = shutil.disk_usage(target.parent).free, plan.nbytes + _SPARE_BYTES
    if free < need:
        raise RequestError(
            f"the checkpoint needs {need / 1e9:.1f} GB, and {target.parent} has {free / 1e9:.1f} GB left"
        )


def _write(plan: Plan, checkpoints: Mapping[str, Checkpoint], folder: Path, shard_bytes: int) -> None:
    """Write weights, config and everything the template's tokenizer needs."""
    library = open_library(checkpoints, plan.models)
    try:
        execution = Execution(plan, library, device=device_named("auto"))
        write_weights(execution, folder, shard_bytes=shard_bytes)
    except OSError as error:
        raise ExportError(f"writing to {folder.parent} failed: {error.strerror}") from error
    finally:
        library.close()
    (folder / "config.json").write_text(json.dumps(plan.config, indent=2) + "\n", encoding="utf-8")
    for name in _CARRIED:
        source = checkpoints[plan.template].path / name
        if source.is_file():
            shutil.copyfile(source, folder / name)


def _move(staging: Path, target: Path) -> None:
    if not target.exists():
        staging.rename(target)
        return
    old = staging.with_name(f"{staging.name}-old")
    target.rename(old)
    staging.rename(target)
    shutil.rmtree(old)
