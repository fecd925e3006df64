"""What lm-eval could not survive is found before it looks; what templates and metrics may not do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from evomerge.errors import TaskError
from evomerge.evaluate.task_folder import check_folder
from evomerge.evaluate.task_library import TaskLibrary
from tests.cli.conftest import save_task


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save_task(tmp_path / "tasks")
    return tmp_path / "tasks"


def load(folder: Path) -> object:
    return TaskLibrary(folder, few_shot=None, seed=0).load("tiny")


def edit(folder: Path, old: str, new: str) -> None:
    file = folder / "tiny.yaml"
    assert old in file.read_text()
    file.write_text(file.read_text().replace(old, new))


def test_a_sound_folder_passes_with_what_lm_eval_passes_over(folder: Path) -> None:
    (folder / "broken.yaml").write_text("task: [")
    (folder / "binary.yaml").write_bytes(b"\xff\xfe")
    (folder / "gone.yaml").symlink_to("nowhere")
    (folder / "loop.yaml").symlink_to("loop.yaml")
    check_folder(folder)


@pytest.mark.parametrize("text", ["[" * 5000, "{a: " * 5000, "- " * 5000], ids=["lists", "tables", "steps"])
def test_a_file_nested_very_deep_is_refused(text: str, folder: Path) -> None:
    (folder / "deep.yaml").write_text(text)
    with pytest.raises(TaskError, match=r"deep\.yaml has values nested deeper than 200 levels"):
        check_folder(folder)


def test_a_pipe_is_refused(folder: Path) -> None:
    os.mkfifo(folder / "pipe.yaml")
    with pytest.raises(TaskError, match=r"pipe\.yaml cannot be read: it is no regular file"):
        check_folder(folder)


def test_a_template_reaches_no_python(folder: Path) -> None:
    load(folder)
    edit(folder, '"{{prompt}}"', '"{{ cycler.__init__.__globals__.os.getcwd() }}"')
    with pytest.raises(TaskError, match="SecurityError: access to attribute '__init__'"):
        load(folder)


def test_a_template_runs_no_endless_loop(folder: Path) -> None:
    edit(folder, '"{{prompt}}"', '"{% for i in range(10**9) %}x{% endfor %}"')
    with pytest.raises(TaskError, match="OverflowError: Range too big"):
        load(folder)


def test_a_metric_is_not_fetched_as_code(folder: Path) -> None:
    edit(folder, "metric: acc,", "metric: accuracy,")
    with pytest.raises(TaskError, match="metric `accuracy` is none of lm-eval's own"):
        load(folder)


def test_an_aggregation_nobody_knows_is_refused(folder: Path) -> None:
    edit(folder, "aggregation: mean", "aggregation: meen")
    with pytest.raises(TaskError, match="no `aggregation` for its metric `acc` that lm-eval knows"):
        load(folder)


def test_a_function_that_exits_ends_no_search(folder: Path) -> None:
    (folder / "data.py").write_text("raise SystemExit(0)\n")
    with pytest.raises(TaskError, match="cannot be loaded: SystemExit: 0"):
        load(folder)
