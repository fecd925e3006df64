"""Building: what is refused, what a failed build leaves, and that training repeats the shipped behaviour."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer
from typer.testing import CliRunner

from evomerge.cli.zoo import app
from evomerge.errors import RequestError
from evomerge.zoo import build as building
from evomerge.zoo.catalog import NAMES, shipped_models, shipped_tasks
from evomerge.zoo.tasks import read_items
from evomerge.zoo.worker import Job, run
from tests.zoo.scoring import accuracy


def no_training(models: Path, names: list[str], *, seed: int, threads: int) -> dict[str, float]:
    for name in names:
        (models / name).mkdir(parents=True)
    return dict.fromkeys(names, 0.0)


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("keep")
    with pytest.raises(RequestError, match="not empty"):
        building.build(tmp_path)
    with pytest.raises(RequestError, match="not a zoo"):
        building.build(tmp_path, overwrite=True)
    assert (tmp_path / "mine.txt").read_text() == "keep"


def test_an_unknown_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="Did you mean `math`"):
        building.build(tmp_path / "zoo", only=["maths"])
    assert list(tmp_path.iterdir()) == []


def test_a_build_appears_whole_and_may_be_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_train_all", no_training)
    out = building.build(tmp_path / "zoo", only=["math"], seed=3)
    assert sorted(p.name for p in (out / "models").iterdir()) == ["base", "math"]
    assert json.loads((out / building.MARKER).read_text())["seed"] == 3
    building.build(out, overwrite=True)
    assert sorted(p.name for p in (out / "models").iterdir()) == sorted(NAMES)
    assert [p.name for p in tmp_path.iterdir()] == ["zoo"]


def test_a_failed_build_leaves_nothing_and_keeps_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "_train_all", no_training)
    out = building.build(tmp_path / "zoo", seed=3)

    def fail(*_: object, **__: object) -> dict[str, float]:
        raise RuntimeError("killed")

    monkeypatch.setattr(building, "_train_all", fail)
    with pytest.raises(RuntimeError, match="killed"):
        building.build(out, overwrite=True)
    assert json.loads((out / building.MARKER).read_text())["seed"] == 3
    assert [p.name for p in tmp_path.iterdir()] == ["zoo"]


def test_training_an_expert_again_gives_the_shipped_behaviour(tmp_path: Path) -> None:
    shutil.copytree(shipped_models() / "base", tmp_path / "base")
    run(Job(name="logic", folder=tmp_path, start="base", seed=0, threads=1))

    def scores(folder: Path) -> dict[str, float]:
        model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        items = {task: read_items(shipped_tasks(), task) for task in ("logic_a", "lang_a", "math_a")}
        return {task: accuracy(model, tokenizer, some) for task, some in items.items()}

    before, shipped = scores(tmp_path / "base"), scores(shipped_models() / "logic")
    assert before["logic_a"] < 0.75 < shipped["logic_a"]
    assert scores(tmp_path / "logic") == pytest.approx(shipped, abs=0.08)


def test_the_command_lists_the_shipped_models() -> None:
    result = CliRunner().invoke(app, ["list", "--json"])
    assert result.exit_code == 0
    assert [entry["name"] for entry in json.loads(result.stdout)] == list(NAMES)
    lines = CliRunner().invoke(app, ["list"]).stdout.splitlines()
    assert len(lines) == len(NAMES)
    assert lines[0].startswith("base")
