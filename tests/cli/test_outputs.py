"""What the commands print and serve for a finished two-objective run of the zoo."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

import evomerge
from tests.cli.running import evomerge_command
from tests.controller.conftest import TWO_OBJECTIVES


def test_closing_table_is_data_and_progress_is_talk(place: Path) -> None:
    out, err = (place / "stdout.txt").read_text(), (place / "stderr.txt").read_text()
    assert "parent math" in out
    assert "best math_b" in out
    assert "report items" in out
    assert "30/30 done" in err
    assert "evomerge report runs/two" in err
    assert "evomerge export runs/two" in err
    assert "30/30" not in out


def test_a_second_run_gets_a_folder_of_its_own(place: Path) -> None:
    done = evomerge_command("search", "two.yaml", "--budget", "6", "--serial", cwd=place)
    assert done.returncode == 0, done.stderr
    assert {path.name for path in (place / "runs").iterdir()} == {"two", "two-2"}


@pytest.mark.parametrize("kind", ["table", "csv", "json", "md"])
def test_front_in_every_format(place: Path, kind: str) -> None:
    done = evomerge_command("front", "runs/two", "--format", kind, cwd=place)
    assert done.returncode == 0, done.stderr
    members = front_of(place)
    assert len(members) >= 3
    if kind == "csv":
        assert [int(row["trial"]) for row in csv.DictReader(io.StringIO(done.stdout))] == members
    elif kind == "json":
        assert [row["trial"] for row in json.loads(done.stdout)] == members
    else:
        lines = [line for line in done.stdout.splitlines() if re.match(r"^[│|]\s+\d+ ", line)]
        assert [int(re.findall(r"\d+", line)[0]) for line in lines] == members


@pytest.mark.parametrize("kind", ["table", "json", "md"])
def test_report_in_every_format(place: Path, kind: str) -> None:
    done = evomerge_command("report", "runs/two", "--format", kind, cwd=place)
    assert (done.returncode, done.stderr) == (0, "")
    run = evomerge.open_run(place / "runs" / "two")
    if kind == "json":
        found = json.loads(done.stdout)
        assert found == run.report()
        assert found["chosen"] == {name: run.best(name) for name in ("math_b", "stories_b")}
        assert found["knee"] == run.knee()
    else:
        assert re.search(r"^[│|] .*best math_b.* [│|] +(\d+) ", done.stdout, re.MULTILINE)
        assert "on 60 report items" in done.stdout
        assert "items: math_b 40 search, 40 select, 60 report" in done.stdout


def test_report_writes_a_page_beside_what_it_prints(place: Path, tmp_path: Path) -> None:
    run = shutil.copytree(place / "runs" / "two", tmp_path / "two")
    printed = evomerge_command("report", run, "--format", "table", cwd=place)
    assert not (run / "report.html").exists()
    done = evomerge_command("report", run, cwd=place)
    assert (done.returncode, done.stdout) == (0, printed.stdout)
    assert done.stderr == f"Report: {run / 'report.html'}\n"
    elsewhere = evomerge_command("report", run, "--html", "page.html", "--format", "json", cwd=tmp_path)
    assert json.loads(elsewhere.stdout) == evomerge.open_run(run).report()
    assert (tmp_path / "page.html").read_bytes() == (run / "report.html").read_bytes()


def test_a_page_that_cannot_be_written_is_one_sentence(place: Path, tmp_path: Path) -> None:
    done = evomerge_command("report", "runs/two", "--html", tmp_path, cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        f"error: the report {tmp_path} cannot be written: Is a directory; "
        "name another file with `--html FILE`\n"
    )


def test_report_of_a_search_that_was_cut_off_says_how_to_go_on(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "runs" / "two", tmp_path / "cut")
    (tmp_path / "cut" / "report.json").unlink()
    refused = evomerge_command("report", tmp_path / "cut", "--format", "md", cwd=place)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert not (tmp_path / "cut" / "report.html").exists()
    done = evomerge_command("report", tmp_path / "cut", cwd=place)
    assert (done.returncode, done.stdout) == (0, "")
    assert "has not ended" in done.stderr
    assert done.stderr.endswith(f"Report: {tmp_path / 'cut' / 'report.html'}\n")
    assert "nothing was scored on select or report items" in (tmp_path / "cut" / "report.html").read_text()
    command = re.search(r"`evomerge (search .* --resume)`", done.stderr)
    assert command is not None
    again = evomerge_command(*command[1].split(), "--serial", "--budget", "30", cwd=place)
    assert again.returncode == 0, again.stderr
    assert again.stdout == (place / "stdout.txt").read_text()
    kept = [
        json.loads((run / "report.json").read_text()) for run in (place / "runs" / "two", tmp_path / "cut")
    ]
    assert kept[0] == kept[1]


def test_check_tells_what_the_items_can_show_and_writes_nothing(place: Path) -> None:
    before = sorted(place.rglob("*"))
    done = evomerge_command("check", "two.yaml", "--no-dry-run", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "8 genes, sampler nsgaii, seed 0, budget 24" in done.stdout
    assert "smallest gain over a parent that 60 report items prove" in done.stdout
    assert "luck of the best of 24 candidates on 40 search items" in done.stdout
    found = json.loads(
        evomerge_command(
            "check", "two.yaml", "--budget", "100", "--no-dry-run", "--format", "json", cwd=place
        ).stdout
    )
    assert found["budget"] == 100
    assert [each["measure"] for each in found["objectives"]] == ["math_b", "stories_b"]
    assert sorted(place.rglob("*")) == before


def test_check_of_a_wrong_space_is_one_sentence(place: Path, tmp_path: Path) -> None:
    (tmp_path / "wrong.yaml").write_text(TWO_OBJECTIVES.replace("metric: acc", "metric: accc"))
    done = evomerge_command("check", tmp_path / "wrong.yaml", cwd=place)
    assert (done.returncode, done.stdout) == (2, "")
    assert "no metric named `accc`. Did you mean `acc`?" in done.stderr


@pytest.mark.parametrize("choice", [["--knee"], ["--trial", "1"], ["--best", "stories_b"]])
def test_export_of_a_chosen_trial(place: Path, tmp_path: Path, choice: list[str]) -> None:
    done = evomerge_command("export", "runs/two", tmp_path / "out", *choice, cwd=place)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(tmp_path / "out")
    assert "scores as recorded" in done.stderr
    assert (tmp_path / "out" / "model.safetensors").is_file()


def test_export_that_is_not_scored_again(place: Path, tmp_path: Path) -> None:
    done = evomerge_command("export", "runs/two", tmp_path / "out", "--trial", "1", "--no-verify", cwd=place)
    assert done.returncode == 0, done.stderr
    assert "scores as recorded" not in done.stderr
    assert "Not scored again; the search recorded: math_b 0." in done.stderr
    assert "was not scored again" in (tmp_path / "out" / "README.md").read_text()


def test_export_of_a_run_whose_source_lies_elsewhere(place: Path, tmp_path: Path) -> None:
    run = evomerge.open_run(place / "runs" / "two")
    shutil.copytree(run.record.paths["math"], tmp_path / "moved")
    elsewhere = shutil.copytree(place / "runs" / "two", tmp_path / "runs" / "two")
    record = json.loads((elsewhere / "run.json").read_text())
    record["paths"]["math"] = str(tmp_path / "gone")
    (elsewhere / "run.json").write_text(json.dumps(record))
    command = ["export", "runs/two", "out", "--trial", "1"]
    refused = evomerge_command(*command, cwd=tmp_path)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr == (
        f"error: no model `math` at {tmp_path / 'gone'}; say where it lies with `--source math=FOLDER`\n"
    )
    done = evomerge_command(*command, "--source", "math=moved", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "scores as recorded" in done.stderr


def front_of(place: Path) -> list[int]:
    """Return the trials on the front."""
    return list(evomerge.open_run(place / "runs" / "two").front()["trial"])


def fetched(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=30) as answer:
        content: bytes = answer.read()
        return content


def test_dashboard_shows_the_study_on_loopback(place: Path) -> None:
    command = [sys.executable, "-m", "evomerge", "dashboard", "runs/two", "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=place) as process:
        try:
            assert process.stderr is not None
            found = re.search(r"(http://127\.0\.0\.1:\d+)(/\S+)", process.stderr.readline())
            assert found
            check_dashboard(*found.groups(), members=set(front_of(place)))
            check_nothing_can_be_changed(found[1])
            check_dashboard(*found.groups(), members=set(front_of(place)))
        finally:
            process.terminate()


def check_nothing_can_be_changed(host: str) -> None:
    (study,) = json.load(urllib.request.urlopen(f"{host}/api/studies"))["study_summaries"]
    delete = urllib.request.Request(f"{host}/api/studies/{study['study_id']}", method="DELETE")
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(delete)


@pytest.mark.parametrize("streams", [">&-", "2>&-", ">&- 2>&-"])
def test_a_closed_stream_is_no_error(place: Path, streams: str) -> None:
    command = f"{sys.executable} -m evomerge front runs/two {streams}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=place, check=False)
    assert done.returncode == 0
    assert done.stderr == ""
    assert bool(done.stdout) == (streams == "2>&-")


def test_a_damaged_report_is_one_sentence(place: Path) -> None:
    shutil.copytree(place / "runs" / "two", place / "runs" / "torn")
    (place / "runs" / "torn" / "report.json").write_text("{")
    done = evomerge_command("front", "runs/torn", cwd=place)
    assert done.returncode == 2
    assert done.stderr.strip().endswith("report.json is damaged: delete it, and `--resume` writes it anew")
    content = json.loads((place / "runs" / "two" / "report.json").read_text())
    (place / "runs" / "torn" / "report.json").write_text(json.dumps(content | {"of_tomorrow": 1}))
    done = evomerge_command("front", "runs/torn", cwd=place)
    assert done.returncode == 2
    assert "report.json is damaged, or not of this evomerge (TypeError: " in done.stderr
    shutil.rmtree(place / "runs" / "torn")


def check_dashboard(host: str, page: str, *, members: set[int]) -> None:
    """Hold what the dashboard serves to what the run holds."""
    assert b"<title>Optuna Dashboard" in fetched(host + page)
    summary = json.loads(fetched(f"{host}/api/studies"))["study_summaries"][0]
    assert summary["study_name"] == "two"
    detail: dict[str, Any] = json.loads(fetched(f"{host}/api/studies/{summary['study_id']}?after=0"))
    assert page.endswith(f"/{summary['study_id']}")
    assert detail["objective_names"] == ["math_b", "stories_b"]
    assert detail["directions"] == ["maximize", "minimize"]
    assert len(detail["trials"]) == 30
    described = {attribute["key"]: attribute["value"] for attribute in detail["user_attrs"]}
    assert described["models"] == "math, lang over base by task_arithmetic"
    assert "math_b (acc ↑), stories_b (bits_per_byte ↓)" in described["objectives"]
    told = {
        state: {attribute["key"] for attribute in trial["user_attrs"]}
        for trial in detail["trials"]
        for state in [trial["state"]]
    }
    always = {"model", "method", "outcome", "search items", "seconds scoring", "recipe key"}
    assert (
        always | {"math_b, search items", "math_b, gain over best parent, search items"} <= told["Complete"]
    )
    assert always | {"math_b, search items, estimated"} <= told["Pruned"]
    assert "## What came of it" in detail["note"]["body"]
    artifacts = [trial["artifacts"] for trial in detail["trials"]]
    assert all(len(each) == 1 for each in artifacts)
    (recipe,) = artifacts[min(members)]
    address = f"{host}/artifacts/{summary['study_id']}/{min(members)}/{recipe['artifact_id']}"
    assert fetched(address).startswith(b"models:")
    assert {trial["number"] for trial in detail["best_trials"]} == members
