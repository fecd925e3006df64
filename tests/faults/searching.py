"""Searches of the zoo as `evomerge search --serial`, begun or gone on with in a process of their own."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.checkpoints.locate import ZOO
from tests.faults.killing import End, Forks
from tests.faults.leavings import leavings

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


def few_items(folder: Path) -> Path:
    """Write the zoo's tasks with as many items as are used here, so that a sitting begins soon."""
    shutil.copytree(ZOO / "tasks", folder)
    for file in (folder / "data").iterdir():
        lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
        file.write_text("".join(lines[:ITEMS]), encoding="utf-8")
    return folder


@dataclass(frozen=True)
class Searched:
    """A space, and what an uninterrupted search of it left after so many instants."""

    file: Path
    lived: dict[str, Any]
    instants: int


def sitting(forks: Forks, file: Path, run: Path, **kill: Any) -> End:
    """Begin a search or go on with it."""
    resume = ["--resume"] if (run / "run.json").exists() else []
    words = ["search", str(file), "--run", str(run), "--serial", "--quiet", *resume]
    return forks.run("tests.faults.killing:command", *words, **kill)


def finish(forks: Forks, file: Path, run: Path) -> dict[str, Any]:
    end = sitting(forks, file, run)
    assert end.code == 0, end.err
    return leavings(run)


def lived(forks: Forks, folder: Path, tasks: Path, text: str) -> Searched:
    file = folder / "space.yaml"
    file.write_text(text.replace("TASKS", str(tasks)))
    end = sitting(forks, file, folder / "lived")
    assert end.code == 0, end.err
    return Searched(file, leavings(folder / "lived"), end.instants)
