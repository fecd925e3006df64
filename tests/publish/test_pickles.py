"""Pickled sources: asked for once, remembered by the run, the same tensors as from safetensors."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from evomerge.archive.run import open_run
from evomerge.cli.main import app
from evomerge.controller.public import search
from evomerge.errors import CheckpointError
from evomerge.publish.public import export
from tests.cli.conftest import SPACE, save_llama, save_task

RECIPE = """\
models: {base: MODELS/base, math: MODELS/math}
merges: {merged: {method: task_arithmetic, base: base, sources: [math], params: {weight: 0.5}}}
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three models, of which `math` is pickled, a task, a space and a recipe of them."""
    folder = tmp_path_factory.mktemp("pickles")
    for seed, name in enumerate(["base", "math", "lang", "plain"]):
        save_llama(folder / "models" / name, seed=seed if name != "plain" else 1)
    weights = folder / "models" / "math" / "model.safetensors"
    torch.save(load_file(weights), weights.with_name("pytorch_model.bin"))
    weights.unlink()
    save_task(folder / "tasks")
    (folder / "space.yaml").write_text(SPACE + "inherit: false\n")  # nobody trained them: they look broken
    (folder / "recipe.yaml").write_text(RECIPE.replace("MODELS", str(folder / "models")))
    return folder


def test_a_run_that_was_allowed_goes_on_and_exports(place: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"`sources\.math`: .* pickled weights .* `--allow-pickle`"):
        search(place / "space.yaml", run=tmp_path / "run", serial=True)
    assert not (tmp_path / "run").exists()
    search(place / "space.yaml", run=tmp_path / "run", serial=True, budget=5, allow_pickle=True)
    assert open_run(tmp_path / "run").record.brief().allow_pickle
    run = search(place / "space.yaml", run=tmp_path / "run", serial=True, budget=7, resume=True)
    assert len(run.frozen_trials) == 7
    export(run, tmp_path / "made")


def test_a_recipe_is_exported_on_the_word_and_not_without(place: Path, tmp_path: Path) -> None:
    command = ["export", str(place / "recipe.yaml"), str(tmp_path / "made")]
    refused = CliRunner().invoke(app, command)
    assert isinstance(refused.exception, CheckpointError)
    assert "`--allow-pickle`" in str(refused.exception)
    assert CliRunner().invoke(app, [*command, "--allow-pickle"]).exit_code == 0
    plain = (place / "recipe.yaml").read_text().replace("models/math", "models/plain")
    (tmp_path / "plain.yaml").write_text(plain)
    same = export(tmp_path / "plain.yaml", tmp_path / "same")
    assert (same / "model.safetensors").read_bytes() == (tmp_path / "made" / "model.safetensors").read_bytes()


def test_the_command_passes_the_word_to_the_search(place: Path, tmp_path: Path) -> None:
    command = [
        "search",
        str(place / "space.yaml"),
        "--run",
        str(tmp_path / "run"),
        "--serial",
        "--budget",
        "4",
    ]
    assert isinstance(CliRunner().invoke(app, command).exception, CheckpointError)
    assert CliRunner().invoke(app, [*command, "--allow-pickle", "--quiet"]).exit_code == 0
