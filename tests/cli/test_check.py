"""`evomerge check` as people run it: what it prints, where, how wide, and its exit codes."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from evomerge.cli import check
from evomerge.cli.main import main
from evomerge.controller import check as checking
from evomerge.controller.resources import Need
from evomerge.errors import WorkError
from tests.cli.conftest import MERGED, SPACE, Workplace, edit_config

Captured = pytest.CaptureFixture[str]

HEADINGS = ["Search", "Sources", "Tasks", "Memory and disk", "Time", "Smallest gains", "Warnings"]


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    """Run the command in this process, and return its exit code."""
    monkeypatch.setattr(sys, "argv", ["evomerge", "check", "space.yaml", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return int(ended.value.code or 0)


def test_everything_is_told_in_groups_and_nothing_is_written(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    before = workplace.listing()
    assert run(monkeypatch, "--workers", "3") == 0
    said = capfd.readouterr()
    assert workplace.listing() == before
    lines = said.out.splitlines()
    assert [line for line in lines if line in HEADINGS] == HEADINGS
    for part in (
        "  sampler random; gp may suit better: 6 genes have",
        "base, math and lang do not state their licences",
        "3 workers of 0.7 GB of programs, a model of",
        "6 candidates with 3 workers: about 0 s, as nothing is raced.",
        "smallest gain over a parent that 4 report items prove",
        "task `tiny` has only 4 search",
    ):
        assert part in said.out
    assert lines[-1] == "This space can be searched, with 3 warnings."
    assert said.err == "Dry run: building a candidate and asking it a few items …\n"


def test_json_has_all_of_it(workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: Captured) -> None:
    assert run(monkeypatch, "--format", "json", "--serial", "--budget", "50") == 0
    found = json.loads(capfd.readouterr().out)
    assert (found["budget"], found["workers"], found["problems"]) == (50, 1, [])
    assert found["licence"]["stated"]["name"] == "unknown"
    assert {each["what"] for each in found["traits"]} >= {"architecture", "chat template", "positions"}
    (asked,) = found["measures"]
    assert (asked["role"], asked["task"], asked["higher_is_better"]) == ("objective", "tiny", True)
    assert found["dry_run"]["second"]
    assert found["dry_run"]["whole"] > 0
    assert all(each["needed"] > 0 for each in found["needs"])
    assert found["advice"]["suits"] == "gp"
    assert found["objectives"][0]["shows"][0]["proven"] > 0


def test_problems_are_all_said_and_json_has_them_too(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    workplace.write_space(SPACE.replace("models/math", "models/taller").replace("task: tiny", "task: tony"))
    assert run(monkeypatch) == 2
    said = capfd.readouterr()
    assert said.out == ""
    first, second = said.err.splitlines()
    assert first.startswith("error: space.yaml:1: `sources.math`: `math` cannot be merged with `base`: its")
    assert second.startswith("error: space.yaml:3: `objectives[0].task`: no task named `tony`")
    assert run(monkeypatch, "--format", "json") == 2
    assert len(json.loads(capfd.readouterr().out)["problems"]) == 2


def test_every_mistake_in_the_file_is_a_problem_of_its_own(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    workplace.write_space(SPACE.replace("layers: 1", "layer: 1") + "seeds: 3\n")
    assert run(monkeypatch, "--format", "json") == 2
    said = capfd.readouterr()
    first, second = json.loads(said.out)["problems"]
    assert first.startswith("space.yaml:2: `merge.layer` is not a key here; did you mean `layers`?")
    assert second.startswith("space.yaml:8: `seeds` is not a key here; did you mean `seed`?")
    assert said.err == f"error: {first}\nerror: {second}\n"


def test_a_machine_that_is_too_small_is_a_problem_and_what_is_known_is_shown(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    need = Need(what="memory", needed=9, there=3, how="guesses", problem="one worker needs more; buy some")
    monkeypatch.setattr(checking, "needs", lambda *_, **__: iter([need]))
    assert run(monkeypatch) == 2
    said = capfd.readouterr()
    assert said.err == "error: one worker needs more; buy some\n"  # and no dry run
    assert "Sources" in said.out.splitlines()
    assert "can be searched" not in said.out


def test_a_dry_run_that_fails_is_a_problem(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise WorkError("a candidate at the start of the search fails: boo")

    monkeypatch.setattr(checking, "dry_run", fails)
    assert run(monkeypatch) == 2
    assert "error: a candidate at the start of the search fails: boo\n" in capfd.readouterr().err
    assert run(monkeypatch, "--no-dry-run") == 0
    assert capfd.readouterr().err == ""


def test_a_difference_that_is_only_unwise_is_in_the_list_once(
    workplace: Workplace, monkeypatch: pytest.MonkeyPatch, capfd: Captured
) -> None:
    edit_config(Path("models/lang"), rope_parameters={"rope_type": "default", "rope_theta": 77.0})
    assert run(monkeypatch, "--no-dry-run") == 0
    said = capfd.readouterr()
    assert said.out.count("`rope_theta` of `lang` is 77.0") == 1
    assert said.err == ""
    assert "theta 77, 64 tokens" in said.out


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_of_usual_width_holds_every_line(
    width: int, workplace: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    screen = Console(file=written, width=width, force_terminal=True, color_system=None, soft_wrap=True)
    monkeypatch.setattr(check, "stdout", screen)
    objectives = "objectives: [{task: tiny, name: a_name_that_is_rather_long}, {task: tiny, metric: acc}]"
    text = MERGED.replace("objectives: [{task: tiny}]", objectives)
    workplace.write_space(text + "constraints: [{task: tiny, metric: acc, name: c, min: 0.25, max: 0.75}]\n")
    assert run(monkeypatch, "--no-dry-run") == 0
    lines = written.getvalue().splitlines()
    assert max(map(len, lines)) <= width
    assert "constraint" in written.getvalue()
