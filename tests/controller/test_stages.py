"""Searches in stages: a trial of an earlier run is written once and then is a source like any other."""
# ruff: noqa: E501 - messages stand as users see them

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import optuna
import pandas as pd
import pytest

import evomerge
from evomerge.archive.run import Run
from evomerge.checkpoints.digest import digest
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.controller.public import search
from evomerge.controller.setup import resolve
from evomerge.controller.stages import Stage, numbered, write_stage
from evomerge.errors import CheckpointError, RequestError, RunError, SpaceError, TaskError, WorkError
from evomerge.publish.public import export
from evomerge.space import load_space, read_space
from tests.controller.conftest import ALL_SCORED, TWO_OBJECTIVES

FIRST = TWO_OBJECTIVES + "racing: off\n"  # any trial may be picked
SECOND = FIRST.replace("math: zoo:math", "best: {run: runs/stage1}")


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished run whose best in each objective and whose knee are three different trials."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "one.yaml").write_text(FIRST)
    run = search(folder / "one.yaml", run=folder / "runs" / "stage1", serial=True, budget=14)
    report = run.report() or {}
    # whatever so short a search found: candidates for one objective and as the knee, a parent for the other
    run.folder.report.write_text(json.dumps(report | {"chosen": {"math_b": 6, "stories_b": 2}, "knee": 9}))
    assert (run.best("math_b"), run.best("stories_b"), run.knee()) == (6, 2, 9)
    return run


@pytest.fixture
def place(first: Run, tmp_path: Path) -> Path:
    """A folder with a copy of that run and a space that starts from its best."""
    shutil.copytree(first.folder.path, tmp_path / "runs" / "stage1")
    (tmp_path / "two.yaml").write_text(SECOND)
    return tmp_path


def picking(place: Path, pick: str) -> Path:
    file = place / "two.yaml"
    file.write_text(SECOND.replace("run: runs/stage1", f"run: runs/stage1, {pick}"))
    return file


def scored(run: Run) -> int:
    return int((run.trials()["state"] == "scored").sum())


def listing(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def stage(place: Path, number: int) -> Stage:
    return numbered(evomerge.open_run(place / "runs" / "stage1"), number)


def test_the_best_of_an_earlier_run_scores_as_it_did_there(place: Path, first: Run) -> None:
    second = search(place / "two.yaml", run=place / "runs" / "stage2", serial=True, budget=6)
    trials = second.trials()
    number = int(trials[trials["baseline"] == "parent best"]["trial"].iloc[0])
    assert second.scores(number) == first.scores(first.best())
    columns = ["split", "task", "metric", "item", "score"]
    there, here = (
        run.items().query(f"trial == {each} and split == 'search'")[columns].reset_index(drop=True)
        for run, each in ((first, first.best()), (second, number))
    )
    pd.testing.assert_frame_equal(there, here)
    again = export(second, place / "out", trial=5)  # held to its score
    assert (again / "model.safetensors").is_file()


def test_it_is_written_as_its_export_is(place: Path, first: Run) -> None:
    record = resolve(read_space(place / "two.yaml"))
    folder = place / "runs" / "stage1" / "exports" / f"trial-{first.best()}"
    assert record.paths["best"] == record.models["best"].source == str(folder)
    exported = export(first, place / "out")
    assert record.models["best"].digest == digest(open_checkpoint(exported))
    for people in (
        "README.md",
        "recipe.yaml",
        "recipe.mergekit.yaml",
    ):  # a stage is for the next search alone
        (exported / people).unlink()
    for name in {file.name for file in exported.iterdir()}:
        assert (folder / name).read_bytes() == (exported / name).read_bytes()
    remade = export(folder / "recipe.yaml", place / "remade")
    assert digest(open_checkpoint(remade)) == record.models["best"].digest


def test_it_is_written_once(place: Path, first: Run) -> None:
    told: list[str] = []
    resolve(read_space(place / "two.yaml"), tell=told.append)
    before = listing(place)
    run = place / "runs" / "stage1"
    assert told == [f"Writing trial {first.best()} of {run} as a checkpoint (5 MB) …"]
    resolve(read_space(place / "two.yaml"), tell=told.append)
    assert (len(told), listing(place)) == (1, before)


@pytest.mark.parametrize(
    ("pick", "choose"),
    [
        ("pick: best", lambda run: run.best("math_b")),
        ("objective: stories_b", lambda run: run.best("stories_b")),
        ("pick: best, objective: stories_b", lambda run: run.best("stories_b")),
        ("pick: knee", lambda run: run.knee()),
        ("pick: 3", lambda run: 3),
    ],
)
def test_a_trial_is_picked(place: Path, first: Run, pick: str, choose: Callable[[Run], int]) -> None:
    record = resolve(read_space(picking(place, pick)))
    assert Path(record.paths["best"]).name == f"trial-{choose(first)}"


def test_the_knee_of_one_objective_is_its_best(tmp_path: Path) -> None:
    (tmp_path / "one.yaml").write_text(ALL_SCORED)
    run = search(tmp_path / "one.yaml", run=tmp_path / "run", serial=True, budget=6)
    assert run.knee() == run.best()


def test_a_space_in_python_may_start_from_a_run(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    run = evomerge.search(load_space("two.yaml"), run=place / "stage2", serial=True, budget=3)
    assert "parent best" in set(run.trials()["baseline"])
    more = evomerge.search("stage2/space.yaml", serial=True, budget=4, resume=True)
    assert scored(more) == 4


@pytest.mark.parametrize(
    ("pick", "error", "says"),
    [
        ("pick: 99", RunError, r"two\.yaml:2: `sources\.best\.pick`: no trial 99: the run has 16 trials"),
        ("pick: 14", RunError, r"`sources\.best\.pick`: trial 14 has no score: it is running"),
        ("pick: 15", RunError, r"`sources\.best\.pick`: trial 15 has no score: it is waiting"),
        (
            "objective: math_c",
            RunError,
            r"`sources\.best\.objective`: no objective named `math_c`; the run has math_b, stories_b",
        ),
        (
            "pick: knee, objective: math_b",
            SpaceError,
            r"two\.yaml:2: `sources\.best` has an `objective`, which",
        ),
    ],
)
def test_a_pick_that_is_no_scored_trial_is_refused(
    place: Path, pick: str, error: type[RequestError], says: str
) -> None:
    run = evomerge.open_run(place / "runs" / "stage1")
    study = optuna.load_study(
        study_name=run.record.study,
        storage=optuna.storages.JournalStorage(
            optuna.storages.journal.JournalFileBackend(str(run.folder.journal))
        ),
    )
    study.ask()
    study.enqueue_trial({})
    refused(picking(place, pick), error, says)


def refused(space: Path, error: type[RequestError], says: str) -> None:
    """Hold a search to being refused before anything is written."""
    before = listing(space.parent)
    with pytest.raises(error, match=says):
        search(space, run=space.parent / "runs" / "stage2", serial=True, budget=3)
    assert listing(space.parent) == before


@pytest.mark.parametrize(
    ("old", "new", "error", "says"),
    [
        (
            "runs/stage1",
            "runs/none",
            RunError,
            r"yaml:2: `sources\.best\.run`: no run folder `runs/none` \(looked at "
            r"[^ ]*/runs/none\); `evomerge search` makes one of its space$",
        ),
        (
            "runs/stage1",
            "runs",
            RunError,
            r"`sources\.best\.run`: .*/runs is not a run folder: it has no run\.",
        ),
        ("task: math_b", "task: math_c", TaskError, r"`objectives\[0\]\.task`: no task named `math_c`"),
        ("report: 60", "report: 6000", RequestError, r"`items`: "),
        ("lang: zoo:lang", "lang: ./none", CheckpointError, r"`sources\.lang`: no model folder `\./none`"),
        ("lang: zoo:lang", "lang: hollow", CheckpointError, r"`sources\.lang`: .* it has no config\.json"),
    ],
)
def test_what_else_is_wrong_is_told_before_a_checkpoint_is_written(
    place: Path, old: str, new: str, error: type[RequestError], says: str
) -> None:
    assert SECOND.count(old) == 1
    (place / "hollow").mkdir()
    (place / "two.yaml").write_text(SECOND.replace(old, new))
    refused(place / "two.yaml", error, says)


def test_a_run_in_which_nothing_was_found_has_no_best(tmp_path: Path) -> None:
    text = ALL_SCORED.replace("dtype: float32", "dtype: float16").replace(
        "-0.3, high: 2.0", "1.0e+8, high: 1.0e+9"
    )
    (tmp_path / "one.yaml").write_text(text + "constraints: [{task: stories_b, max: 0.001}]\n")
    with pytest.raises(WorkError, match="only baselines could be scored"):
        search(tmp_path / "one.yaml", run=tmp_path / "runs" / "stage1", serial=True, budget=7)
    (tmp_path / "two.yaml").write_text(SECOND)
    refused(tmp_path / "two.yaml", RunError, "has no scored trial that meets every constraint")
    refused(picking(tmp_path, "pick: 6"), RunError, r"`sources\.best\.pick`: trial 6 has no score: it failed")


def test_a_run_in_a_database_with_a_password_is_to_be_exported(place: Path) -> None:
    file = place / "runs" / "stage1" / "run.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps({**record, "storage": "postgresql://me:***@host/db"}))
    refused(
        place / "two.yaml", RunError, r"asks for a password; .* `evomerge export .*/stage1 FOLDER --storage"
    )


def test_a_folder_that_cannot_be_written_is_told_how_to_go_round(place: Path, first: Run) -> None:
    (place / "runs" / "stage1" / "exports").touch()  # root may write anywhere else
    refused(
        place / "two.yaml",
        RunError,
        r"`sources\.best`: no checkpoint can be written into .*/exports \(File exists\); write it elsewhere with "
        rf"`evomerge export .*/stage1 FOLDER --trial {first.best()}`, and name that folder as `source`",
    )


def test_what_is_there_needs_no_disk_that_can_be_written(place: Path) -> None:
    record = resolve(read_space(place / "two.yaml"))
    lock = place / "runs" / "stage1" / "exports" / "lock"
    lock.unlink()
    lock.mkdir()
    assert resolve(read_space(place / "two.yaml")).models == record.models


def test_a_disk_that_is_too_small_is_told_before_it_is_full(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    refused(place / "two.yaml", RequestError, r"`sources\.best`: the checkpoint needs .* has 0\.0 GB left")


def test_a_run_whose_sources_are_gone_says_which(place: Path) -> None:
    file = place / "runs" / "stage1" / "run.json"
    record = json.loads(file.read_text())
    paths = {**record["paths"], "math": str(place / "gone")}
    file.write_text(json.dumps({**record, "paths": paths}))
    refused(
        place / "two.yaml",
        RequestError,
        r"`sources\.best`: trial \d+ of .*/stage1: no model `math` at .*/gone; .*; or write it elsewhere with",
    )


@pytest.mark.parametrize("damage", ["weights", "note", "empty"])
def test_a_folder_that_holds_something_else_is_refused(place: Path, first: Run, damage: str) -> None:
    folder = write_stage(stage(place, first.best()))
    if damage == "weights":
        file = folder / "model.safetensors"
        file.write_bytes(file.read_bytes()[:-1] + b"\x01")
    elif damage == "note":
        (folder / "made.json").write_text("[]")
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    refused(
        place / "two.yaml", RunError, r"`sources\.best`: .*/trial-\d+ is not as evomerge wrote it; delete it"
    )


def test_searches_that_start_at_once_write_it_once(place: Path, first: Run) -> None:
    told: list[str] = []

    def slowly(said: str) -> None:
        told.append(said)
        time.sleep(0.5)  # the others come to the lock meanwhile

    killed = place / "runs" / "stage1" / "exports" / f".trial-{first.best()}.partial-killed"
    killed.mkdir(parents=True)
    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(write_stage, stage(place, first.best()), tell=slowly) for _ in range(3)]
        folders = {each.result() for each in running}
    assert len(told) == len(folders) == 1
    assert sorted(path.name for path in killed.parent.iterdir()) == ["lock", f"trial-{first.best()}"]
    write_stage(stage(place, first.best()))  # what is there is whole


def test_a_resumed_search_keeps_its_trial_though_another_is_best_by_now(
    place: Path, first: Run, monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    space, run = place / "two.yaml", place / "runs" / "stage2"
    begun = search(space, run=run, serial=True, budget=3)
    monkeypatch.setattr(Run, "best", lambda *_: 1)
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    for gone, budget in ((False, 4), (True, 5)):
        if gone:
            shutil.rmtree(begun.record.paths["best"])
        more = search(space, run=run, serial=True, budget=budget, resume=True)
        assert scored(more) == budget
        assert more.record.models == begun.record.models
    shutil.rmtree(begun.record.paths["best"])
    more = search(run / "space.yaml", serial=True, budget=6, resume=True)  # where `runs/stage1` leads nowhere
    assert more.record.models == begun.record.models


def test_a_run_that_has_moved_is_found_by_the_space(place: Path) -> None:
    space, run = place / "two.yaml", place / "runs" / "stage2"
    begun = search(space, run=run, serial=True, budget=3)
    (place / "runs" / "stage1").rename(place / "runs" / "elsewhere")
    with pytest.raises(RunError, match=r"`sources\.best\.run`: no run folder `runs/stage1`"):
        search(space, run=run, serial=True, budget=4, resume=True)
    space.write_text(SECOND.replace("runs/stage1", "runs/elsewhere"))
    more = search(space, run=run, serial=True, budget=4, resume=True)
    assert more.record.models["best"].digest == begun.record.models["best"].digest
    assert more.record.paths["best"].startswith(str(place / "runs" / "elsewhere"))


def test_a_run_that_was_replaced_ends_the_search_on_it(place: Path) -> None:
    space, run = place / "two.yaml", place / "runs" / "stage2"
    search(space, run=run, serial=True, budget=3)
    shutil.rmtree(place / "runs" / "stage1")
    other = ALL_SCORED.replace("weight: {low: -0.3, high: 2.0}", "weight: {low: 0.1, high: 0.2}")
    (place / "one.yaml").write_text(other)
    search(place / "one.yaml", run=place / "runs" / "stage1", serial=True, budget=14)
    with pytest.raises(RunError, match="the content of source `best` changed since it was started"):
        search(space, run=run, serial=True, budget=4, resume=True)


def test_layers_of_a_trial_are_stacked_and_the_stack_is_a_source_of_a_third_search(
    place: Path, first: Run
) -> None:
    (place / "two.yaml").write_text(SECOND + "path: {form: blocks, models: [best, merged]}\n")
    second = search(place / "two.yaml", run=place / "runs" / "stage2", serial=True, budget=8)
    assert "best" in second.recipe(7).parts
    shutil.rmtree(second.record.paths["best"])
    alone = SECOND.replace(
        "base: zoo:base, best: {run: runs/stage1}, lang: zoo:lang", "best: {run: runs/stage2, pick: 7}"
    )
    alone = alone.replace("  base: base\n  method: task_arithmetic", "  method: linear")
    (place / "three.yaml").write_text(alone)  # it has more layers than the others
    told: list[str] = []
    record = resolve(read_space(place / "three.yaml"), tell=told.append)
    assert [said.partition(" as ")[0] for said in told] == [
        f"Writing trial {first.best()} of {place}/runs/stage1",  # the second needs it
        f"Writing trial 7 of {place}/runs/stage2",
    ]
    exported = export(second, place / "out", trial=7)
    assert digest(open_checkpoint(exported)) == record.models["best"].digest
