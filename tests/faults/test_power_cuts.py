"""Run folders whose last writes a power cut left half done: they go on as if it had not come."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.archive.folder import RunFolder
from tests.faults.killing import Forks
from tests.faults.searching import Searched, finish, sitting

LOGS = ("study.journal", "items.jsonl", "identities.jsonl")


@pytest.fixture(scope="module")
def cut(forks: Forks, racing: Searched, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was cut off when some candidates had raced and some were given up."""
    run = tmp_path_factory.mktemp("cut") / "run"
    assert sitting(forks, racing.file, run, at=int(racing.instants * 0.7)).killed
    return run


def torn(run: Path) -> None:
    """Half a line at the end of each log, and files that were yet to be renamed."""
    for name in LOGS:
        with (run / name).open("rb+") as file:
            last = file.read().splitlines(keepends=True)[-1]
            file.write(last[: len(last) // 2])
    for name in ("front.json", "run.json", "report.json"):
        (run / f".{name}.partial").write_bytes(b'{"hyper')


def zeroed(run: Path) -> None:
    """Zeros where the last line was to be, and no front."""
    for name, end in zip(LOGS, (b"", b"\n", b'"}\n'), strict=True):
        with (run / name).open("ab") as file:
            file.write(bytes(40) + end)
    (run / "front.json").unlink()


def holed(run: Path) -> None:
    """Zeros in the midst of what was written to the study together, whose end is there."""
    journal = run / "study.journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    lines[-3] = bytes(len(lines[-3]))
    journal.write_bytes(b"".join(lines))


def behind(run: Path) -> None:
    """The last scores are in the item log, and the study and the front do not know of them."""
    journal = run / "study.journal"
    lines = journal.read_text().splitlines(keepends=True)
    ends = [i for i, line in enumerate(lines) if json.loads(line).get("state") in (1, 2)]  # complete, pruned
    journal.write_text("".join(lines[: ends[-1]]))
    (run / "front.json").write_text('{"hypervolume": 0.1, "fro')


@pytest.mark.parametrize("damage", [torn, zeroed, holed, behind])
def test_what_a_power_cut_left_half_done_is_done_again(
    forks: Forks, tmp_path: Path, racing: Searched, cut: Path, damage: Callable[[Path], None]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(cut, run)
    damage(run)
    assert finish(forks, racing.file, run) == racing.lived


def test_scores_without_their_items_are_refused(
    forks: Forks, tmp_path: Path, racing: Searched, cut: Path
) -> None:
    """No crash does that: items are recorded first. So something else was done to the folder."""
    run = tmp_path / "run"
    shutil.copytree(cut, run)
    items = run / "items.jsonl"
    kept = [line for line in items.read_text().splitlines(keepends=True) if json.loads(line)["trial"] != 3]
    items.write_text("".join(kept))
    before = _content(run)
    end = sitting(forks, racing.file, run)
    assert end.code == 2
    assert "the study has a score of trial 3, but" in end.err
    assert _content(run) | {"study.journal": b""} == before | {"study.journal": b""}  # it was opened


def test_a_second_controller_is_refused_and_a_dead_one_holds_nothing(
    forks: Forks, tmp_path: Path, racing: Searched, cut: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(cut, run)
    before = _content(run)
    with RunFolder(run).writing():
        end = sitting(forks, racing.file, run)
        assert end.code == 2
        assert "another evomerge (process" in end.err
        assert _content(run) == before
    assert sitting(forks, racing.file, run, at=40).killed
    with RunFolder(run).writing():
        pass  # or it would raise


def _content(run: Path) -> dict[str, Any]:
    return {name: (run / name).read_bytes() for name in (*LOGS, "run.json", "front.json")}
