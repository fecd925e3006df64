"""Exports: the written checkpoint is the scored model, or there is none."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from evomerge.archive.run import Run
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.tensors import open_library
from evomerge.errors import ExportError, RequestError
from evomerge.merge.memory import ResidentModel
from evomerge.merge.planning import compile_plan
from evomerge.publish.checkpoint import write_checkpoint
from evomerge.publish.public import export
from evomerge.publish.verify import scores_like
from evomerge.recipe import from_yaml

PLAIN = """
import json, sys, lm_eval
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
folder, tasks, positions = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
import torch; torch.set_num_threads(1)
lm = HFLM(pretrained=folder, dtype="float32", batch_size=40, device="cpu", softmax_dtype="float32")
found = lm_eval.simple_evaluate(
    model=lm, tasks=["math_b"], samples={"math_b": positions}, bootstrap_iters=0,
    task_manager=TaskManager(include_path=tasks, include_defaults=False),
)
print(repr(found["results"]["math_b"]["acc,none"]))
"""


def test_fresh_process_with_lm_eval_alone_scores_the_same(run: Run, exported: Path) -> None:
    from evomerge.evaluate.task_library import TaskLibrary

    tasks = run.record.tasks
    assert tasks is not None
    known = TaskLibrary(Path(tasks), few_shot=None, seed=0).load("math_b").facts.items
    positions = sorted(known.index(item) for item in run.record.items["math_b"]["search"])
    shown = subprocess.run(
        [sys.executable, "-c", PLAIN, str(exported), tasks, json.dumps(positions)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert shown.stdout.strip().splitlines()[-1] == repr(run.scores(run.best())["math_b"])


def test_tensors_in_memory_equal_tensors_on_disk(run: Run, exported: Path) -> None:
    recipe = run.recipe(run.best())
    checkpoints = {name: open_checkpoint(Path(path)) for name, path in run.record.paths.items()}
    resident = ResidentModel(open_library(checkpoints, checkpoints), device=torch.device("cpu"))
    live = dict(resident.load(compile_plan(recipe, checkpoints)).named_parameters())
    with safe_open(exported / "model.safetensors", framework="pt") as file:
        assert set(file.keys()) == set(live)
        for name, parameter in live.items():
            assert torch.equal(file.get_tensor(name), parameter.detach())


def test_folder_holds_what_others_need(exported: Path, run: Run) -> None:
    names = {file.name for file in exported.iterdir()}
    assert {"config.json", "tokenizer.json", "recipe.yaml", "README.md"} <= names
    assert json.loads((exported / "config.json").read_text())["dtype"] == "float32"
    assert from_yaml((exported / "recipe.yaml").read_text()) == run.recipe(run.best())
    card = (exported / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers")
    assert "parent math" in card
    assert "/work" not in card
    assert str(Path.home()) not in card


def test_exported_recipe_exports_the_same_bytes(exported: Path, tmp_path: Path) -> None:
    recipe = from_yaml((exported / "recipe.yaml").read_text())
    again = export(recipe, tmp_path / "again")
    assert (again / "model.safetensors").read_bytes() == (exported / "model.safetensors").read_bytes()


def test_checkpoint_that_scores_otherwise_is_not_kept(run: Run, tmp_path: Path) -> None:
    wrong = {"math_b": run.scores(run.best())["math_b"] + 0.001}
    with pytest.raises(ExportError, match="it was not kept"):
        write_checkpoint(
            run.recipe(run.best()),
            tmp_path / "wrong",
            verify=scores_like(wrong, run.record.brief(), run.record.provenance),
        )
    assert list(tmp_path.iterdir()) == []


def test_existing_target_is_left_alone(run: Run, exported: Path) -> None:
    before = {file: file.read_bytes() for file in exported.iterdir()}
    with pytest.raises(RequestError, match="--overwrite"):
        export(run, exported, trial=1)
    assert {file: file.read_bytes() for file in exported.iterdir()} == before


def test_overwrite_replaces_a_checkpoint_but_no_other_folder(run: Run, tmp_path: Path) -> None:
    target = export(run.recipe(1), tmp_path / "target")
    before = (target / "model.safetensors").read_bytes()
    export(run.recipe(2), target, overwrite=True)
    assert (target / "model.safetensors").read_bytes() != before
    assert [child.name for child in tmp_path.iterdir()] == ["target"]
    (tmp_path / "thesis").mkdir()
    with pytest.raises(RequestError, match="is no checkpoint that evomerge wrote"):
        export(run.recipe(1), tmp_path / "thesis", overwrite=True)


def test_shards_load_as_one_model(run: Run, exported: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM

    target = write_checkpoint(run.recipe(run.best()), tmp_path / "sharded", shard_bytes=1_000_000)
    assert len(list(target.glob("model-*-of-*.safetensors"))) >= 4
    whole, parts = (
        AutoModelForCausalLM.from_pretrained(folder).state_dict() for folder in (exported, target)
    )
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
