"""Real searches of the zoo, killed and interrupted as `evomerge search --serial`, then resumed."""

from __future__ import annotations

import random
import signal
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.faults.killing import Forks
from tests.faults.leavings import leavings
from tests.faults.searching import RACING, SPACE, TWO_OBJECTIVES, Searched, finish, lived, sitting


def killed(forks: Forks, file: Path, run: Path, kills: Sequence[int]) -> int:
    """Search, killed at these instants of a sitting; return how often it was."""
    times = 0
    for at in kills:
        end = sitting(forks, file, run, at=at)
        assert end.killed or end.code == 0, end.err
        times += end.killed
    return times


def test_a_search_with_all_there_is_goes_on_as_if_it_had_not_been_killed(
    forks: Forks, tmp_path: Path, racing: Searched
) -> None:
    """At instants all over its life: while the first few race, in the closing rounds; time and again."""
    states = [trial["state"] for trial in racing.lived["trials"]]
    assert states.count("PRUNED") > 2
    assert any("waits" in trial["attributes"] for trial in racing.lived["trials"])
    draw, whole = random.Random(0), racing.instants
    plans = [[int(whole * (share + draw.uniform(0, 0.05)))] for share in (0.45, 0.6, 0.93)]
    plans.append([draw.randrange(1, whole // 3) for _ in range(3)])
    for i, plan in enumerate(plans):
        assert killed(forks, racing.file, tmp_path / f"{i}", plan) > 0
        assert finish(forks, racing.file, tmp_path / f"{i}") == racing.lived, plan


def test_random_candidates_scored_on_all_items_go_on(forks: Forks, tmp_path: Path, tasks: Path) -> None:
    text = SPACE.replace("sampler: cma", "sampler: random").replace("budget: 18", "budget: 10")
    text = text.replace(RACING, "racing: off\ninherit: off")
    whole = lived(forks, tmp_path, tasks, text)
    assert {trial["state"] for trial in whole.lived["trials"]} == {"COMPLETE"}
    assert killed(forks, whole.file, tmp_path / "run", [whole.instants // 2]) == 1
    assert finish(forks, whole.file, tmp_path / "run") == whole.lived


def test_a_sampler_without_a_state_is_rebuilt_from_the_trials(
    forks: Forks, tmp_path: Path, tasks: Path
) -> None:
    """Its candidates are others then; what was finished stays, and the budget is exact."""
    text = TWO_OBJECTIVES.replace("sampler: cma", "sampler: nsgaii").replace("budget: 18", "budget: 12")
    whole = lived(forks, tmp_path, tasks, text)
    run = tmp_path / "killed"
    assert killed(forks, whole.file, run, [whole.instants // 2]) == 1
    before = [trial for trial in leavings(run)["trials"] if trial["state"] in ("COMPLETE", "PRUNED")]
    after = finish(forks, whole.file, run)
    assert len(after["trials"]) == 12
    assert {trial["state"] for trial in after["trials"]} <= {"COMPLETE", "PRUNED"}
    assert before
    assert all(trial == after["trials"][trial["number"]] for trial in before)
    rows = [tuple(row[:6]) for row in after["items"]]
    assert len(rows) == len(set(rows))
    on_front = {row["trial"] for row in after["front"]["front"]}
    assert on_front <= {trial["number"] for trial in after["trials"] if trial["state"] == "COMPLETE"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_search_that_is_told_to_stop_says_how_to_go_on_and_does(
    forks: Forks, tmp_path: Path, racing: Searched, number: signal.Signals
) -> None:
    run = tmp_path / "run"
    end = sitting(forks, racing.file, run, at=racing.instants // 2, signal=number)
    assert end.code == 130
    assert end.out == ""
    assert end.err.endswith(f"evomerge search {racing.file} --run {run} --resume --serial\n")
    assert "Traceback" not in end.err
    again = sitting(forks, racing.file, run, at=3, signal=number)
    assert again.code == 130
    assert "Traceback" not in again.err
    assert finish(forks, racing.file, run) == racing.lived


def test_a_kill_at_any_time_lets_go_of_the_folder(forks: Forks, tmp_path: Path, racing: Searched) -> None:
    """Not between two writes, but whenever; and a second controller is refused while the first lives."""
    run = tmp_path / "run"
    draw = random.Random(2)
    end = sitting(forks, racing.file, run, after=draw.uniform(1.0, 2.0))
    assert end.killed or end.code == 0
    assert finish(forks, racing.file, run) == racing.lived


def test_resuming_a_finished_run_scores_nobody_again(forks: Forks, tmp_path: Path, racing: Searched) -> None:
    run = racing.file.parent / "lived"
    before = (run / "items.jsonl").read_bytes()
    assert finish(forks, racing.file, run) == racing.lived
    assert (run / "items.jsonl").read_bytes() == before
