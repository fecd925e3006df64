"""Small real searches to be killed, and the process that forks them."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.checkpoints.locate import ZOO
from tests.faults.killing import Forks
from tests.faults.searching import Searched, lived

RACING = "racing: {looks: [20, 50], cold_start: 6, alpha: 0.001, margin: 0}"
SPACE = f"""
sources: {{base: zoo:base, math: zoo:math, lang: zoo:lang}}
merge:
  base: base
  method: task_arithmetic
  layers: 1
  genes: {{weight: {{low: 0.7, high: 1.4}}}}
objectives:
  - {{task: math_b, metric: acc}}
tasks: TASKS
items: {{search: 80, select: 12, report: 12}}
{RACING}
sampler: cma
budget: 18
dtype: float32
batch_size: 60
"""
TWO_OBJECTIVES = SPACE.replace(
    "  - {task: math_b, metric: acc}\n",
    "  - {task: math_b, metric: acc}\n  - {task: math_a, metric: acc}\n",
)
ITEMS = 104


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks")) as made:
        yield made


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The zoo's tasks with as many items as are used, so that a sitting begins soon."""
    folder = tmp_path_factory.mktemp("zoo") / "tasks"
    shutil.copytree(ZOO / "tasks", folder)
    for file in (folder / "data").iterdir():
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[:ITEMS]), encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def racing(forks: Forks, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """An uninterrupted search with all there is: a race, heirs, select and report items."""
    return lived(forks, tmp_path_factory.mktemp("racing"), tasks, SPACE)
