"""From what a user writes (`zoo:math`, a folder, a hub id) to a folder on this machine."""

from __future__ import annotations

import os
from pathlib import Path

from evomerge.errors import CheckpointError, RunError, unknown

ZOO = Path(__file__).parent.parent / "zoo" / "shipped"
"""The built-in models and tasks, shipped with the package."""

RUN_FILE = "run.json"
"""What makes a folder that of a run."""
_HUB_FILES = ["*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "README.md"]
_HUB_PICKLES = ["pytorch_model*.bin", "adapter_model.bin"]


def locate(
    source: str, *, revision: str | None = None, near: Path | None = None, allow_pickle: bool = False
) -> Path:
    """Return the folder of a source model.

    `source` is `zoo:NAME`, a folder (relative ones are looked up from `near`, then from the working
    directory), or a hub id `owner/name`, which is downloaded unless it is cached, and its pickles only if
    `allow_pickle` and there is nothing else. Raises `CheckpointError` saying which of these was tried.
    """
    if source.startswith("zoo:"):
        return _zoo(source.removeprefix("zoo:"))
    for candidate in _folders(source, near):
        if candidate.is_dir():
            return candidate.resolve()
    if source.count("/") == 1 and not source.startswith((".", "/", "~")):
        folder = _hub(source, revision, _HUB_FILES)
        if allow_pickle and not any(folder.glob("*.safetensors")):
            return _hub(source, revision, [*_HUB_FILES, *_HUB_PICKLES])
        return folder
    raise CheckpointError(f"no model folder `{source}` (looked at {_looked(source, near)})")


def canonical(source: str, path: Path) -> str:
    """Return `source` so that it leads to `path` from any working directory."""
    if source.startswith("zoo:") or repository(path) is not None:
        return source
    return str(path)


def locate_tasks(tasks: str, *, near: Path | None = None) -> Path:
    """Return the folder of lm-eval task files that `tasks` names (`zoo:tasks` or a folder)."""
    if tasks == "zoo:tasks":
        return ZOO / "tasks"
    for candidate in _folders(tasks, near):
        if candidate.is_dir():
            return candidate.resolve()
    raise CheckpointError(f"no task folder `{tasks}` (looked at {_looked(tasks, near)})")


def locate_statistics(path: str, *, near: Path | None = None) -> Path:
    """Return the statistics file that `path` names, looked up as the folder of a model is."""
    for candidate in _folders(path, near):
        if candidate.is_file():
            return candidate.resolve()
    raise CheckpointError(
        f"no statistics file `{path}` (looked at {_looked(path, near)}); `evomerge measure` makes one"
    )


def locate_items(path: str, *, near: Path | None = None) -> Path:
    """Return the file of items that `path` names, looked up as the folder of a model is."""
    for candidate in _folders(path, near):
        if candidate.is_file():
            return candidate.resolve()
    raise CheckpointError(f"no file of items `{path}` (looked at {_looked(path, near)})")


def locate_run(run: str, *, near: Path | None = None) -> Path:
    """Return the run folder that `run` names, looked up as the folder of a model is."""
    for candidate in _folders(run, near):
        if candidate.is_dir():
            return candidate.resolve()
    raise RunError(
        f"no run folder `{run}` (looked at {_looked(run, near)}); `evomerge search` makes one of its space"
    )


def _looked(path: str, near: Path | None) -> str:
    """Return where `path` was looked for, for a message."""
    return os.path.normpath(_folders(path, near)[0])


def repository(path: Path) -> str | None:
    """Return `OWNER/NAME` if `path` is `models--OWNER--NAME/snapshots/COMMIT` of the hub's cache."""
    kept = path.parent.parent.name
    if path.parent.name != "snapshots" or not kept.startswith("models--"):
        return None
    return kept.removeprefix("models--").replace("--", "/")


def _folders(source: str, near: Path | None) -> list[Path]:
    try:
        path = Path(source).expanduser()
    except RuntimeError as error:  # `~name` of no user
        raise CheckpointError(f"no folder `{source}`: {error}") from error
    if path.is_absolute() or near is None:
        return [path]
    return [near / path, path]


def _zoo(name: str) -> Path:
    folder = ZOO / "models" / name
    known = [each.name for each in (ZOO / "models").glob("*/")]
    if name not in known:
        raise CheckpointError(unknown("zoo model", name, known))
    return folder


def _hub(repo: str, revision: str | None, files: list[str]) -> Path:
    """Return the hub repository's snapshot folder with the `files` of these patterns only."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, allow_patterns=files))
    except LocalEntryNotFoundError as error:
        raise CheckpointError(
            f"`{repo}` is neither a folder here nor in the hub's cache, and the hub cannot be reached"
        ) from error
    except (HfHubHTTPError, HFValidationError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(f"`{repo}` is no folder here, and the hub says: {reason}") from error
