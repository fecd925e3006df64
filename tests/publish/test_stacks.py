"""Data-flow and hybrid winners: stock checkpoints that a process without evomerge scores the same."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from evomerge.archive.run import Run
from evomerge.controller.public import search
from evomerge.evaluate.task_library import TaskLibrary
from evomerge.publish.public import export

SPACE = """
sources: {{base: zoo:base, math: zoo:math, lang: zoo:lang}}
merge: {merge}
path: {path}
objectives: [{{task: math_b, metric: acc}}]
tasks: zoo:tasks
items: {{search: 40, select: 40, report: 40}}
sampler: random
budget: 14
racing: off
dtype: float32
batch_size: 40
"""
DATA_FLOW = "{form: slots, models: [math, lang], repeats: 1, embed: [math, lang]}"
HYBRID = (
    "{form: blocks, models: [math, merged], layers: 3, scale: {low: 0.8, high: 1.25}, head: [lang, merged]}"
)

PLAIN = """
import json, sys
import lm_eval, torch
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager
tasks, positions = sys.argv[1], json.loads(sys.argv[2])
torch.set_num_threads(1)
for folder in sys.argv[3:]:
    lm = HFLM(pretrained=folder, dtype="float32", batch_size=40, device="cpu", softmax_dtype="float32")
    found = lm_eval.simple_evaluate(
        model=lm, tasks=["math_b"], samples={"math_b": positions}, bootstrap_iters=0,
        task_manager=TaskManager(include_path=tasks, include_defaults=False),
    )
    print("acc", repr(found["results"]["math_b"]["acc,none"]))
assert "evomerge" not in sys.modules
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    folder = tmp_path_factory.mktemp("stacks")
    merges = ("{base: base}", "{base: base, layers: 1, genes: {weight: {low: 0.5, high: 1.5}}}")
    for name, merge, path in zip(("flow", "both"), merges, (DATA_FLOW, HYBRID), strict=True):
        (folder / f"{name}.yaml").write_text(SPACE.format(merge=merge, path=path))
    return [
        search(folder / f"{name}.yaml", run=folder / name, serial=True, budget=14)
        for name in ("flow", "both")
    ]


def best_stack(run: Run) -> int:
    """Return the best trial that is a stack unlike any model; baselines are often better after ten trials."""
    frame = run.trials()
    frame = frame[frame["baseline"].isna() & (frame["state"] == "scored")]
    stacks = [
        number
        for number in frame["trial"]
        if run.recipe(number).path and len({slot.model for slot in run.recipe(number).path or ()}) > 1
    ]
    assert stacks
    return int(frame[frame["trial"].isin(stacks)].sort_values("math_b").iloc[-1]["trial"])


def test_winners_score_the_same_in_a_process_without_evomerge(runs: list[Run], tmp_path: Path) -> None:
    numbers = [best_stack(run) for run in runs]
    for run, number in zip(runs, numbers, strict=True):
        export(run, tmp_path / run.folder.path.name, trial=number)
    tasks = runs[0].record.tasks
    assert tasks is not None
    known = TaskLibrary(Path(tasks), few_shot=None, seed=0).load("math_b").facts.items
    positions = sorted(known.index(item) for item in runs[0].record.items["math_b"]["search"])
    folders = [str(tmp_path / run.folder.path.name) for run in runs]
    shown = subprocess.run(
        [sys.executable, "-c", PLAIN, tasks, json.dumps(positions), *folders],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert shown.returncode == 0, shown.stderr
    found = [line.split()[1] for line in shown.stdout.splitlines() if line.startswith("acc ")]
    assert found == [repr(run.scores(number)["math_b"]) for run, number in zip(runs, numbers, strict=True)]
    for run, number in zip(runs, numbers, strict=True):
        config = json.loads((tmp_path / run.folder.path.name / "config.json").read_text())
        assert config["num_hidden_layers"] == len(run.recipe(number).path or ())


def test_a_merge_is_searched_together_with_the_path(runs: list[Run]) -> None:
    frame = runs[1].trials()
    sampled = frame[frame["baseline"].isna()]
    used = [bool(runs[1].recipe(number).merges) for number in sampled["trial"]]
    assert any(used)
    assert (sampled["weight/math/L0-5"].notna() == used).all()


def test_the_scale_of_a_layer_that_is_not_passed_is_missing(runs: list[Run]) -> None:
    frame = runs[0].trials()
    sampled = frame[frame["baseline"].isna()]
    for name in ("1/lang/L2", "1/math/L3"):
        off = sampled[f"path/on/{name}"] <= 0
        assert (sampled[f"path/scale/{name}"].isna() == off).all()


def test_the_first_model_is_where_a_search_begins(runs: list[Run]) -> None:
    frame = runs[0].trials()
    parents = {str(row["baseline"]): row for row in frame.to_dict("records")}
    assert parents["parent math"]["path/on/1/math/L2"] > 0
    assert runs[0].recipe(int(parents["parent math"]["trial"])).path is not None
    assert set(runs[0].recipe(int(parents["parent lang"]["trial"])).merges) == {"merged"}
