"""`evomerge.export`: what it takes, and that a run's trial is verified."""

from __future__ import annotations

from pathlib import Path

import pytest

import evomerge
from evomerge.archive.run import Run
from evomerge.errors import ExportError, RequestError
from evomerge.publish import verify
from evomerge.recipe import to_yaml


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_a_run_is_a_value_or_a_folder(run: Run, exported: Path, tmp_path: Path) -> None:
    assert weights(evomerge.export(run.folder.path, tmp_path / "path")) == weights(exported)
    assert weights(evomerge.export(str(run.folder.path), tmp_path / "text")) == weights(exported)


def test_a_recipe_is_a_value_or_a_file(run: Run, exported: Path, tmp_path: Path) -> None:
    recipe = run.recipe(run.best())
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe))
    assert weights(evomerge.export(recipe, tmp_path / "value", paths=run.record.paths)) == weights(exported)
    assert weights(evomerge.export(tmp_path / "recipe.yaml", tmp_path / "file")) == weights(exported)


def test_a_trial_is_chosen_as_on_the_command_line(run: Run, tmp_path: Path) -> None:
    for name, choice in {"trial": {"trial": 1}, "best": {"best": "math_b"}, "knee": {"knee": True}}.items():
        target = evomerge.export(run, tmp_path / name, **choice)  # type: ignore[arg-type]
        number = 1 if name == "trial" else run.best()
        assert f"trial {number}, started" in (target / "README.md").read_text()
    with pytest.raises(RequestError, match="choose one of"):
        evomerge.export(run, tmp_path / "both", trial=1, knee=True)


def test_a_trial_that_scores_otherwise_is_not_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verify, "score_folder", lambda *_: {"math_b": -1.0})
    with pytest.raises(ExportError, match="it was not kept"):
        evomerge.export(run, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []
