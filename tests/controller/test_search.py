"""Whole searches: real Ray, real lm-eval, real Optuna storage, the zoo's checkpoints."""

from __future__ import annotations

import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

import evomerge
from evomerge.archive.folder import RunFolder
from evomerge.archive.run import Run
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.checkpoints.locate import ZOO
from evomerge.controller.live import LiveRun
from evomerge.controller.loop import run_loop
from evomerge.controller.public import search
from evomerge.controller.setup import resolve
from evomerge.dispatch.job import Job
from evomerge.dispatch.serial import SerialDispatcher
from evomerge.errors import EvaluationError, RequestError, RunError, SpaceError, WorkError
from evomerge.evaluate.evaluator import ItemScoring
from evomerge.space import parse_space, read_space
from evomerge.space.baselines import baselines
from evomerge.types import Outcome
from tests.controller.waiting import wait_for_items

GENES = "/"
COMMAND = [sys.executable, "-m", "evomerge", "search"]


def genes(frame: pd.DataFrame) -> pd.DataFrame:
    return frame[[name for name in frame.columns if GENES in name]]


@pytest.fixture(scope="module")
def serial(space_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return search(space_file, run=tmp_path_factory.mktemp("runs") / "serial", serial=True)


@pytest.fixture(scope="module")
def one_worker(space_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return search(space_file, run=tmp_path_factory.mktemp("runs") / "ray1", workers=1)


@pytest.fixture(scope="module")
def two_workers(space_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return search(space_file, run=tmp_path_factory.mktemp("runs") / "ray2", workers=2)


def test_budget_is_exact(serial: Run, one_worker: Run, two_workers: Run) -> None:
    for run in (serial, one_worker, two_workers):
        assert list(run.trials()["trial"]) == list(range(24))
        assert set(run.trials()["state"]) == {"scored", "dropped"}


def test_baselines_are_the_first_trials(two_workers: Run) -> None:
    first = two_workers.trials().head(5)
    assert list(first["baseline"]) == [
        "base",
        "parent math",
        "parent lang",
        "uniform average",
        "task arithmetic",
    ]
    assert list(first["state"]) == ["scored"] * 5  # they are never given up
    assert two_workers.trials()["baseline"].notna().sum() == 5


def test_ray_with_one_worker_gives_what_serial_gives(serial: Run, one_worker: Run) -> None:
    pd.testing.assert_frame_equal(genes(serial.trials()), genes(one_worker.trials()))
    pd.testing.assert_frame_equal(serial.items(), one_worker.items())
    assert serial.archive == one_worker.archive
    assert serial.report() == one_worker.report()


def test_two_workers_race_and_finish_every_candidate(space_file: Path, tmp_path: Path) -> None:
    """With enough items for the first few to wait for one another, whichever worker they are on."""
    text = space_file.read_text().replace("search: 40", "search: 60")
    (tmp_path / "racing.yaml").write_text(text + "racing: {cold_start: 4, looks: [20, 50]}\n")
    run = search(tmp_path / "racing.yaml", run=tmp_path / "run", workers=2, budget=12)
    trials = run.trials()
    assert list(trials["trial"]) == list(range(12))
    assert set(trials["state"]) == {"scored", "dropped"}
    searched = run.items().query("split == 'search'")
    sizes = [trial.user_attrs.get("items", 60) for trial in run.frozen_trials]
    assert searched.groupby("trial").size().tolist() == sizes
    assert min(sizes) < 60


def test_workers_agree_on_every_recipe_they_share(serial: Run, two_workers: Run) -> None:
    one, other = (run.trials().query("state == 'scored'") for run in (serial, two_workers))
    shared = pd.merge(one, other, on="recipe", suffixes=("", "_other"))
    assert len(shared) >= 5  # at least the baselines
    assert (shared["math_b"] == shared["math_b_other"]).all()


def test_search_beats_parents_and_average_on_items_it_never_saw(serial: Run) -> None:
    report = serial.report()
    assert report is not None
    scores = {row["label"]: row["report"]["math_b"] for row in report["rows"] if row["report"]}
    best = next(row["report"]["math_b"] for row in report["rows"] if row["trial"] == serial.best())
    others = [scores[label] for label in ("base", "parent math", "parent lang", "uniform average")]
    assert best > max(others) + 0.1
    gain = next(gain for gain in report["gains"] if "parent" in gain["as_best"])
    assert gain["low"] > 0
    assert gain["verdict"] == "better"


def test_item_scores_average_to_the_recorded_score(serial: Run) -> None:
    items = serial.items()
    searched = items[items["split"] == "search"]
    trials = serial.trials()
    expected = trials["state"].map({"scored": 40, "dropped": 25})
    assert searched.groupby("trial").size().tolist() == expected.tolist()
    means = searched.groupby("trial")["score"].mean()[trials["state"] == "scored"]
    assert means.tolist() == pytest.approx(trials["math_b"].dropna().tolist(), abs=1e-12)


def test_who_is_given_up_has_an_estimate_and_is_on_no_front(serial: Run) -> None:
    trials = serial.trials()
    dropped = [serial.frozen_trials[number] for number in trials.query("state == 'dropped'")["trial"]]
    best = trials["math_b"].max()
    assert dropped
    assert trials.query("state == 'dropped'")["math_b"].isna().all()
    for trial in dropped:
        assert trial.values is None
        assert trial.user_attrs["estimate"]["math_b"] < best
        assert trial.user_attrs["items"] == 25
        assert trial.user_attrs["dropped"].startswith("surely worse than trial ")
    assert not set(serial.front()["trial"]) & {trial.number for trial in dropped}
    assert serial.best() not in {trial.number for trial in dropped}


def test_a_search_with_racing_off_scores_everybody_on_all_items(space_file: Path, tmp_path: Path) -> None:
    (tmp_path / "off.yaml").write_text(space_file.read_text() + "racing: off\n")
    run = search(tmp_path / "off.yaml", run=tmp_path / "off", serial=True, budget=12)
    assert set(run.trials()["state"]) == {"scored"}
    searched = run.items().query("split == 'search'")
    assert set(searched.groupby("trial").size()) == {40}


def test_search_and_report_items_never_meet(serial: Run) -> None:
    items = serial.items()
    by_split = {split: set(part["item"]) for split, part in items.groupby("split")}
    assert len(by_split["report"]) == 60
    assert not by_split["search"] & by_split["report"]


def test_front_file_agrees_with_the_study(serial: Run) -> None:
    written = json.loads(serial.folder.front.read_text())
    assert {row["trial"] for row in written["front"]} == set(serial.front()["trial"])


def test_recipes_are_rebuilt_from_the_record(serial: Run) -> None:
    reopened = evomerge.open_run(serial.folder.path)
    by_label = {each.label: each.recipe for each in baselines(reopened.record.genome)}
    assert reopened.recipe(1) == by_label["parent math"]
    assert [reopened.recipe(n).key for n in range(24)] == list(reopened.trials()["recipe"])


def test_record_pins_versions_digests_and_items(serial: Run) -> None:
    record = json.loads((serial.folder.path / "run.json").read_text())
    assert record["provenance"]["versions"]["torch"]
    assert all(ref["digest"].startswith("blake2b:") for ref in record["models"].values())
    assert len(record["items"]["math_b"]["search"]) == 40


def test_same_seed_same_run_and_another_seed_another(space_file: Path, tmp_path: Path, serial: Run) -> None:
    again = search(space_file, run=tmp_path / "again", serial=True, budget=8)
    pd.testing.assert_frame_equal(genes(again.trials()), genes(serial.trials().head(8)))
    other = search(space_file, run=tmp_path / "other", serial=True, budget=8, seed=1)
    assert not genes(other.trials()).tail(3).equals(genes(again.trials()).tail(3))


def test_two_objectives_end_in_a_front(two_objectives_file: Path, tmp_path: Path) -> None:
    run = search(two_objectives_file, run=tmp_path / "two", serial=True, budget=30)
    front = run.front()
    assert len(front) >= 3
    assert front["math_b"].is_monotonic_decreasing
    assert front["stories_b"].is_monotonic_decreasing  # fewer bits are better: worse maths, better language
    assert json.loads(run.folder.front.read_text())["hypervolume"] > 0


@pytest.mark.parametrize("limit", [0, 1e-9])
def test_time_limit_stops_the_asking(space_file: Path, tmp_path: Path, limit: float) -> None:
    with pytest.raises(WorkError, match="no candidate"):
        search(space_file, run=tmp_path / "late", serial=True, time_limit=limit)


def test_the_log_has_what_went_wrong_also_from_python(space_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "overflow.yaml"
    text = space_file.read_text().replace("dtype: float32", "dtype: float16")
    broken.write_text(text.replace("{low: -0.3, high: 2.0}", "{low: 1.0e+8, high: 1.0e+9}"))
    with pytest.raises(WorkError, match=r"^only baselines could be scored; all 2 others failed.*cannot hold"):
        search(broken, run=tmp_path / "run", serial=True, budget=7)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert "searches into" in log
    assert log.count("cannot hold") == 2


def test_a_run_folder_may_be_renamed(space_file: Path, tmp_path: Path) -> None:
    search(space_file, run=tmp_path / "old", serial=True, budget=6)
    (tmp_path / "old").rename(tmp_path / "new")
    assert len(evomerge.open_run(tmp_path / "new").trials()) == 6
    more = search(space_file, run=tmp_path / "new", serial=True, budget=7, resume=True)
    assert list(more.trials()["trial"]) == list(range(7))


@pytest.mark.parametrize("damage", ["deleted", "cut"])
def test_a_study_that_lost_trials_is_not_continued(space_file: Path, tmp_path: Path, damage: str) -> None:
    search(space_file, run=tmp_path / "run", serial=True, budget=7)
    journal = tmp_path / "run" / "study.journal"
    if damage == "cut":
        journal.write_text("".join(journal.read_text().splitlines(keepends=True)[:20]))
    else:
        journal.unlink()
    items = (tmp_path / "run" / "items.jsonl").read_bytes()
    with pytest.raises(RunError, match=r"the study has \d trials, but .*items.jsonl has scores of trial 6"):
        search(space_file, run=tmp_path / "run", serial=True, budget=8, resume=True)
    assert (tmp_path / "run" / "items.jsonl").read_bytes() == items


def test_a_run_continues_from_its_own_copy_of_the_space(
    space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Relative paths in the copy lead nowhere, but the record knows where they led."""
    home = tmp_path / "home"
    shutil.copytree(ZOO / "models" / "math", home / "models" / "math")
    shutil.copytree(ZOO / "tasks", home / "tasks")
    text = space_file.read_text().replace("zoo:math", "models/math").replace("zoo:tasks", "tasks")
    (home / "mine.yaml").write_text(text)
    run = tmp_path / "runs" / "mine"
    search(home / "mine.yaml", run=run, serial=True, budget=6)
    monkeypatch.chdir(tmp_path)
    more = search(run / "space.yaml", serial=True, budget=7, resume=True)
    assert list(more.trials()["trial"]) == list(range(7))
    away = tmp_path / "elsewhere"
    shutil.move(home, away)
    with pytest.raises(RequestError, match=r"`sources.math`: .*models/math"):
        search(run / "space.yaml", run=run, serial=True, budget=8, resume=True)
    (away / "mine.yaml").write_text(text.replace("models/math", str(away / "models" / "math")))
    moved = search(away / "mine.yaml", run=run, serial=True, budget=8, resume=True)
    assert list(moved.trials()["trial"]) == list(range(8))
    assert evomerge.open_run(run).record.paths["math"] == str(away / "models" / "math")
    evomerge.export(run, tmp_path / "out")


def test_candidates_nobody_has_begun_at_the_deadline_wait_for_a_resume(
    space_file: Path, tmp_path: Path
) -> None:
    """Two evaluators are asked for, one has come, and time is up as soon as the first result is there."""
    record = resolve(read_space(space_file))
    folder = RunFolder(tmp_path / "run")
    folder.create(record, "")
    study = StudyRecord(
        open_storage(folder.journal), record.study,
        objectives=record.objectives, genes=record.genome.genes, sampler=None,
    )  # fmt: skip
    live = LiveRun(folder, record, study, budget=24)
    late = OneOfTwo(record.brief())
    late.deadline = time.monotonic() + 2
    run_loop(live, late, lambda snapshot: None, deadline=late.deadline)
    late.close()
    assert [trial.state.name for trial in study.trials()][:3] == ["COMPLETE", "RUNNING", "WAITING"]


class OneOfTwo(SerialDispatcher):
    """Takes two jobs, begins one, and answers it when time is up."""

    capacity = 2
    deadline = 0.0

    def collect(self) -> list[tuple[Job, Outcome]]:
        time.sleep(max(0.0, self.deadline - time.monotonic()))
        return super().collect()


def started(space: Path, run: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a search of 24 candidates in a process of its own."""
    return subprocess.Popen(
        [*COMMAND, str(space), "--run", str(run), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )


@pytest.mark.parametrize("workers", [["--workers", "1"], ["--workers", "2"]])
def test_kill_dash_nine_and_resume(
    space_file: Path, tmp_path: Path, one_worker: Run, workers: Sequence[str]
) -> None:
    run = tmp_path / "killed"
    process = started(space_file, run, *workers)
    wait_for_items(run, 12, process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    killed = evomerge.open_run(run)
    assert 0 < (killed.trials()["state"] == "scored").sum() < 24
    resumed = subprocess.run(
        [*COMMAND, str(space_file), "--run", str(run), "--resume", *workers],
        capture_output=True,
        text=True,
        check=False,
    )
    assert resumed.returncode == 0, resumed.stderr
    after = evomerge.open_run(run)
    assert list(after.trials()["trial"]) == list(range(24))
    states = after.trials()["state"]
    assert set(states) <= {"scored", "dropped"}
    searched = after.items()[after.items()["split"] == "search"]
    expected = states.map({"scored": 40, "dropped": 25})
    assert searched.groupby("trial").size().tolist() == expected.tolist()
    if workers[-1] == "1":
        pd.testing.assert_frame_equal(genes(after.trials()), genes(one_worker.trials()))
        assert after.archive == one_worker.archive


def test_interrupt_stops_cleanly_and_says_how_to_resume(space_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "interrupted"
    process = started(space_file, run, "--workers", "1")
    wait_for_items(run, 7, process)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "--resume" in err
    assert "Traceback" not in err


def test_an_interrupt_in_the_middle_of_a_record_lets_it_finish(
    space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serial: Run
) -> None:
    """Of a candidate that has all its scores (a baseline) or is given up."""
    states = serial.trials()["state"].tolist()
    dropped_first = states.index("dropped")
    for what, number in (("tell_scored", 4), ("tell_dropped", dropped_first)):
        run, tell = tmp_path / what, getattr(StudyRecord, what)

        def interrupted(study: StudyRecord, told: int, *rest: Any, n: int = number, tell: Any = tell) -> None:
            if told == n:
                signal.raise_signal(signal.SIGINT)
            tell(study, told, *rest)

        with monkeypatch.context() as patched:
            patched.setattr(StudyRecord, what, interrupted)
            with pytest.raises(KeyboardInterrupt):
                search(space_file, run=run, serial=True, budget=24)
        assert evomerge.open_run(run).trials()["state"].tolist() == states[: number + 1]


def test_a_resumed_run_keeps_what_was_asked_on_the_command_line(space_file: Path, tmp_path: Path) -> None:
    first = search(space_file, run=tmp_path / "run", serial=True, budget=7, seed=5, sampler="random")
    again = search(space_file, run=tmp_path / "run", serial=True, resume=True)
    assert again.record.space.seed == 5
    pd.testing.assert_frame_equal(again.trials(), first.trials())
    with pytest.raises(RunError, match="`seed` of the space"):
        search(space_file, run=tmp_path / "run", serial=True, resume=True, seed=6)


def test_a_space_may_be_given_as_a_value(
    space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serial: Run
) -> None:
    monkeypatch.chdir(tmp_path)
    run = search(evomerge.load_space(space_file), serial=True, budget=7)
    assert run.folder.path == tmp_path / "runs" / "small"
    pd.testing.assert_frame_equal(genes(run.trials()), genes(serial.trials().head(7)))
    again = search(run.folder.path / "space.yaml", run=run.folder.path, serial=True, resume=True)
    assert len(again.trials()) == 7
    with pytest.raises(SpaceError, match=r"^`budget` as given must be at least 1, found 0$"):
        search(evomerge.load_space(space_file), budget=0)
    with pytest.raises(RequestError, match=r"^`sources.math` as given: no zoo model named `maths`"):
        search(parse_space(space_file.read_text().replace("zoo:math", "zoo:maths")))


def test_resume_refuses_another_space(space_file: Path, tmp_path: Path, serial: Run) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(space_file.read_text().replace("high: 2.0", "high: 1.5"))
    with pytest.raises(RunError, match=r"cannot be continued: `merge` of the space"):
        search(other, run=serial.folder.path, resume=True, serial=True)


def test_a_larger_budget_extends_a_finished_run(space_file: Path, tmp_path: Path) -> None:
    run = tmp_path / "longer"
    search(space_file, run=run, serial=True, budget=7)
    longer = search(space_file, run=run, serial=True, budget=9, resume=True)
    assert list(longer.trials()["trial"]) == list(range(9))


def test_candidates_that_fail_are_recorded_and_the_search_goes_on(space_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "overflow.yaml"
    text = space_file.read_text().replace("dtype: float32", "dtype: float16")
    broken.write_text(text.replace("{low: -0.3, high: 2.0}", "1, lambda: [1.0, 1.1, 1.2, 1.0e+9]"))
    run = search(broken, run=tmp_path / "overflow", serial=True, sampler="random", budget=15)
    failed = run.trials()[run.trials()["state"] == "failed"]
    assert 0 < len(failed) < 10
    assert failed["failure"].str.contains("cannot hold").all()


def test_a_search_whose_baselines_all_fail_is_given_up(space_file: Path, tmp_path: Path) -> None:
    tasks = tmp_path / "tasks"
    shutil.copytree(ZOO / "tasks", tasks)
    with (tasks / "math_b.yaml").open("a") as file:
        file.write("process_results: !function data.broken\n")
    with (tasks / "data.py").open("a") as file:
        file.write("\n\ndef broken(doc, results):\n    assert not results\n")
    space = tmp_path / "broken.yaml"
    space.write_text(space_file.read_text().replace("zoo:tasks", "tasks"))
    with pytest.raises(WorkError, match=r"given up after 5 failures.*AssertionError at `assert not results`"):
        search(space, run=tmp_path / "run", serial=True)
    assert evomerge.open_run(tmp_path / "run").trials()["state"].tolist() == ["failed"] * 5
    (tmp_path / "run" / "log.txt").unlink()
    with pytest.raises(WorkError, match=r"given up after 10 failures"):  # five of them now
        search(space, run=tmp_path / "run", serial=True, resume=True)


def test_baselines_that_failed_are_tried_again_where_nothing_could_be_scored(
    space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_order(*arguments: Any) -> Any:
        raise EvaluationError("out of order")

    with monkeypatch.context() as broken:
        broken.setattr(ItemScoring, "score", out_of_order)
        with pytest.raises(WorkError, match=r"given up .*out of order"):
            search(space_file, run=tmp_path / "run", serial=True)
    run = search(space_file, run=tmp_path / "run", serial=True, resume=True, budget=7)
    states = run.trials()["state"].tolist()
    assert states[:10] == ["failed"] * 5 + ["scored"] * 5
    assert len(states) == 12  # the failures take no place
    assert run.trials()["baseline"].tolist()[5:10] == run.trials()["baseline"].tolist()[:5]


def test_a_search_in_which_no_merge_works_is_given_up(space_file: Path, tmp_path: Path) -> None:
    broken = tmp_path / "overflow.yaml"
    text = space_file.read_text().replace("dtype: float32", "dtype: float16")
    broken.write_text(text.replace("{low: -0.3, high: 2.0}", "{low: 1.0e+8, high: 1.0e+9}"))
    with pytest.raises(
        WorkError, match=r"^none but baselines could be scored.* after 30 failures.*cannot hold"
    ):
        search(broken, run=tmp_path / "run", serial=True, sampler="random", budget=200)
    assert len(evomerge.open_run(tmp_path / "run").trials()) == 35
    with pytest.raises(WorkError, match=r"after 60 failures"):
        search(broken, run=tmp_path / "run", serial=True, sampler="random", budget=200, resume=True)


def test_constraints_that_nothing_meets_are_named(space_file: Path, tmp_path: Path) -> None:
    strict = tmp_path / "strict.yaml"
    strict.write_text(
        space_file.read_text() + "constraints: [{task: math_a, min: 1.5}, {task: lang_b, min: 0.1}]\n"
    )
    done = subprocess.run(
        [*COMMAND, str(strict), "--run", str(tmp_path / "run"), "--serial", "--budget", "7"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()[-1]
    assert said.startswith("no candidate meets math_a ≥ 1.5 (nearest 0.")
    assert "lang_b" not in said
    assert "evomerge export" not in done.stderr
    report = evomerge.open_run(tmp_path / "run").report()
    assert report is not None
    assert not report["feasible"]


def test_a_full_disk_is_one_sentence_and_the_run_goes_on_afterwards(
    space_file: Path, tmp_path: Path, serial: Run
) -> None:
    command = [*COMMAND, str(space_file), "--run", str(tmp_path / "run"), "--serial"]
    full = subprocess.run(
        command, capture_output=True, text=True, check=False,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)),
    )  # fmt: skip
    assert full.returncode == 1, full.stderr
    assert "Traceback" not in full.stderr
    assert "cannot be written any more: File too large; what is finished is kept" in full.stderr
    again = subprocess.run([*command, "--resume"], capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr
    pd.testing.assert_frame_equal(genes(evomerge.open_run(tmp_path / "run").trials()), genes(serial.trials()))


@pytest.mark.parametrize(
    "options", [{"serial": True, "ray_address": "auto"}, {"serial": True, "workers": 2}, {"workers": 0}]
)
def test_options_that_contradict_each_other_are_refused(
    space_file: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    with pytest.raises(RequestError, match=r"`--serial` evaluates one|at least one worker"):
        search(space_file, run=tmp_path / "run", **options)
    assert list(tmp_path.iterdir()) == []


def test_no_room_for_the_workers_leaves_nothing(space_file: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="use `--workers"):
        search(space_file, run=tmp_path / "crowded", workers=10_000)
    assert list(tmp_path.iterdir()) == []


def test_sqlite_serves_as_storage_and_keeps_one_study_per_name(
    space_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = "sqlite:///study.db"
    run = search(space_file, run=tmp_path / "one", serial=True, storage=database, budget=6)
    assert list(run.trials()["trial"]) == list(range(6))
    assert not run.folder.journal.exists()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert len(evomerge.open_run(tmp_path / "one").trials()) == 6
    with pytest.raises(RunError, match=r"there is no database at .*elsewhere/study\.db"):
        search(space_file, run=tmp_path / "one", serial=True, storage=database, budget=7, resume=True)
    assert list((tmp_path / "elsewhere").iterdir()) == []
    monkeypatch.chdir(tmp_path)
    more = search(space_file, run=tmp_path / "one", serial=True, storage=database, budget=7, resume=True)
    assert len(more.trials()) == 7
    with pytest.raises(RunError, match="already holds a study named `one`"):
        search(space_file, run=tmp_path / "elsewhere" / "one", serial=True, storage=database)


def test_a_greedy_soup_is_a_baseline_on_request(space_file: Path, tmp_path: Path) -> None:
    text = space_file.read_text().replace("  base: base\n  method: task_arithmetic", "  method: linear")
    (tmp_path / "soup.yaml").write_text(text + "baselines: [greedy_soup]\n")
    run = search(tmp_path / "soup.yaml", run=tmp_path / "run", serial=True, budget=9)
    trials = run.trials()
    labels = list(trials["baseline"].dropna())
    assert labels[:4] == ["parent base", "parent math", "parent lang", "uniform average"]
    assert 1 <= len(labels[4:]) <= 2
    assert all(label.startswith("soup of ") for label in labels[4:])
    assert len(trials) == 9
    told = [row["label"] for row in (run.report() or {})["rows"]]
    assert sum("greedy" in label for label in told) == 1
    resumed = search(tmp_path / "soup.yaml", run=tmp_path / "run", serial=True, budget=10, resume=True)
    assert list(resumed.trials()["baseline"].dropna()) == labels
