"""Small real searches of the zoo, shared by the tests that look at what they leave behind."""

from __future__ import annotations

from pathlib import Path

import pytest

SPACE = """
sources: {base: zoo:base, math: zoo:math, lang: zoo:lang}
merge:
  base: base
  method: task_arithmetic
  layers: 2
  genes: {weight: {low: -0.3, high: 2.0}}
objectives:
  - {task: math_b, metric: acc}
tasks: zoo:tasks
items: {search: 40, select: 40, report: 60}
sampler: cma
budget: 24
dtype: float32
batch_size: 40
"""

ALL_SCORED = SPACE + "racing: off\n"
"""For tests that take any trial, which then has a score."""

# Weights near 1, where thirty candidates gave a front of four to six members under every seed tried.
TWO_OBJECTIVES = (
    SPACE.replace(
        "  - {task: math_b, metric: acc}\n",
        "  - {task: math_b, metric: acc}\n  - {task: stories_b, metric: bits_per_byte}\n",
    )
    .replace("{low: -0.3, high: 2.0}", "{low: 0.5, high: 1.6}")
    .replace("sampler: cma", "sampler: nsgaii")
)


@pytest.fixture(scope="session")
def space_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spaces") / "small.yaml"
    path.write_text(SPACE)
    return path


@pytest.fixture(scope="session")
def two_objectives_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("spaces") / "two.yaml"
    path.write_text(TWO_OBJECTIVES)
    return path
