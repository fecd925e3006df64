"""Every example runs as it stands, from another directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"
SCRIPTS = sorted(EXAMPLES.glob("*.py"))


def run(*command: str | Path, cwd: Path) -> str:
    done = subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True, text=True, check=False, cwd=cwd, env=os.environ,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_script_runs_and_leaves_nothing(script: Path, tmp_path: Path) -> None:
    assert run(script, cwd=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_recipe_exports(tmp_path: Path) -> None:
    out = run("-m", "evomerge", "export", EXAMPLES / "recipe.yaml", "merged", cwd=tmp_path)
    assert out == f"{tmp_path / 'merged'}\n"
    assert (tmp_path / "merged" / "model.safetensors").stat().st_size > 2_000_000


def test_the_list_of_examples_is_complete() -> None:
    listed = (EXAMPLES / "README.md").read_text()
    assert len(SCRIPTS) >= 2
    for file in EXAMPLES.iterdir():
        assert file.name == "README.md" or f"({file.name})" in listed
