"""Where lm-eval tasks come from, each loaded once and read as other people's programs."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lm_eval.api.task
import yaml
from lm_eval.api.registry import metric_registry
from lm_eval.tasks import TaskManager

from evomerge.errors import TaskError, unknown
from evomerge.evaluate.harness import ItemTask
from evomerge.evaluate.quiet import quiet_lm_eval
from evomerge.evaluate.task_folder import check_folder


class TaskLibrary:
    """Where lm-eval tasks come from: the YAML files of a folder, or lm-eval's own."""

    def __init__(self, folder: Path | None, *, few_shot: int | None, seed: int) -> None:
        quiet_lm_eval()
        self._folder = folder
        self._where = f"in {folder}" if folder else "among lm-eval's tasks"
        self._own = folder is None
        if folder is not None:
            check_folder(folder)
        self._few_shot = few_shot
        self._seed = seed
        self._manager = (
            TaskManager(include_path=str(folder), include_defaults=False) if folder else TaskManager()
        )

    def load(self, name: str) -> ItemTask:
        """Return the task, ready to be answered.

        Raises `TaskError` for a task that is not there, is a group, or cannot be built.
        """
        if name in self._manager.all_groups or name in self._manager.all_tags:
            raise TaskError(f"`{name}` is a group of tasks; name its tasks one by one")
        if name not in self._manager.all_subtasks:
            self._check_readable(name)
            raise TaskError(f"{unknown('task', name, self._similar(name))} (looked {self._where})")
        try:
            with _no_bytecode(), contextlib.nullcontext() if self._own else _no_hub_metrics():
                task = self._manager.load([name])["tasks"][name]
                loaded = ItemTask(task, few_shot=self._few_shot, seed=self._seed)
        except (Exception, SystemExit) as error:  # a task is other people's templates and functions
            raise TaskError(f"task `{name}` ({self._where}) cannot be loaded: {_root(error)}") from error
        if not loaded.facts.items:
            raise TaskError(f"task `{name}` ({self._where}) has no items")
        if nameless := next((m for m, combine in task.aggregation().items() if not callable(combine)), None):
            raise TaskError(
                f"task `{name}` ({self._where}) has no `aggregation` for its metric `{nameless}` that "
                "lm-eval knows, such as `mean`"
            )
        return loaded

    def _check_readable(self, name: str) -> None:
        """Raise `TaskError` if a file that might hold the task is no YAML: lm-eval skips those."""
        for file in sorted(self._folder.rglob("*.y*ml")) if self._folder else ():
            try:
                yaml.compose(file.read_text(encoding="utf-8"))
            except (yaml.YAMLError, UnicodeDecodeError) as error:
                what = " ".join(str(error).split())
                raise TaskError(
                    f"no task named `{name}` can be read, and the task file {file} is not YAML: {what}"
                ) from error

    def _similar(self, name: str) -> list[str]:
        """Return the known names, of lm-eval's thousands only some that begin alike."""
        known = list(self._manager.all_subtasks)
        return [other for other in known if other[:3] == name[:3]][:20] if self._own else known


@contextlib.contextmanager
def _no_hub_metrics() -> Iterator[None]:
    """Let a task have metrics of lm-eval or functions of its own, and none that is fetched as code."""
    before = lm_eval.api.task.get_metric
    lm_eval.api.task.get_metric = _registered
    try:
        yield
    finally:
        lm_eval.api.task.get_metric = before


def _registered(name: str, hf_evaluate_metric: bool = False) -> Any:
    if hf_evaluate_metric or name not in metric_registry:
        raise TaskError(
            f"its metric `{name}` is none of lm-eval's own, and metrics of the hub, which are code, are not "
            "fetched; write it as a `!function` beside the task"
        )
    return metric_registry.get(name)


@contextlib.contextmanager
def _no_bytecode() -> Iterator[None]:
    """Leave no `__pycache__` beside the functions of a task: the folder is its author's."""
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _root(error: BaseException) -> str:
    """Return in one line what was first wrong."""
    while error.__cause__ is not None:
        error = error.__cause__
    words = str(error).strip().splitlines()
    return f"{type(error).__name__}: {words[0]}" if words else type(error).__name__
