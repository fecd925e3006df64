"""Where a run lies: in PostgreSQL, killed or cut off from its server, and on a disk that fills up."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna_dashboard
import pandas as pd
import pytest

import evomerge
from evomerge.archive.database import is_redacted
from evomerge.archive.folder import RunFolder
from evomerge.archive.run import Run
from evomerge.archive.study import open_storage
from evomerge.controller.public import search
from evomerge.controller.search import Options, execute, logging_to, resume_search
from evomerge.controller.tally import Snapshot
from evomerge.errors import RunError, WorkError
from evomerge.space import read_space
from tests.archive.postgres import PASSWORD, Server
from tests.controller.conftest import SPACE
from tests.controller.waiting import wait_for_items
from tests.small_disk import fill, make_room, small_disk

COMMAND = [sys.executable, "-m", "evomerge", "search"]
BUDGET = 18


@pytest.fixture(scope="module")
def space(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a space whose search is short, and long enough for CMA-ES to be told a generation."""
    file = tmp_path_factory.mktemp("spaces") / "short.yaml"
    short = SPACE.replace("search: 40, select: 40, report: 60", "search: 12, select: 8, report: 8")
    file.write_text(short.replace("budget: 24", f"budget: {BUDGET}"))
    return file


@pytest.fixture(scope="module")
def uninterrupted(space: Path, tmp_path_factory: pytest.TempPathFactory) -> Run:
    return search(space, run=tmp_path_factory.mktemp("runs") / "whole", serial=True)


def genes(run: Run) -> pd.DataFrame:
    trials = run.trials()
    return trials[[name for name in trials.columns if "/" in name]]


def started(space: Path, run: Path, server: Server, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [*COMMAND, str(space), "--run", str(run), "--serial", "--storage", server.url, *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | {"PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def leaks(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and PASSWORD.encode() in file.read_bytes()]


def test_a_run_in_postgresql_outlives_its_controller_and_its_server(
    space: Path, tmp_path: Path, server: Server, uninterrupted: Run
) -> None:
    run = tmp_path / "pg"
    first = started(space, run, server)
    wait_for_items(run, 5, first)
    first.send_signal(signal.SIGKILL)
    said = "".join(first.communicate())
    reader = evomerge.open_run(run, storage=server.url)
    assert 0 < (reader.trials()["state"] == "scored").sum() < BUDGET

    def cut_off(snapshot: Snapshot) -> None:
        if snapshot.finished >= 11:
            server.stop()

    options = Options(serial=True, storage=server.url)
    again = resume_search(read_space(space), RunFolder(run), options=options)
    with pytest.raises(
        WorkError, match=r"^the run's database failed \(.*\); what is finished is kept, so continue"
    ) as caught:
        execute(again, options=options, observe=cut_off)
    said += str(caught.value)
    server.start()

    resumed = search(space, run=run, serial=True, resume=True, storage=server.url)
    assert list(resumed.trials()["trial"]) == list(range(BUDGET))
    pd.testing.assert_frame_equal(genes(resumed), genes(uninterrupted))
    assert resumed.archive == uninterrupted.archive
    assert not resumed.folder.journal.exists()
    assert PASSWORD not in said
    assert leaks(tmp_path) == []
    assert is_redacted(resumed.record.storage or "")
    for read in (lambda: evomerge.open_run(run).trials(), lambda: search(space, run=run, resume=True)):
        with pytest.raises(RunError, match=r"storage .*:\*\*\*@.* needs its password: give `--storage URL`$"):
            read()
    wrong = server.url.replace(PASSWORD, "another")
    with pytest.raises(RunError, match=r"cannot be opened \(.*password authentication failed"):
        search(space, run=run, resume=True, storage=wrong)
    with pytest.raises(RunError, match="already holds a study named `pg`"):
        search(space, run=tmp_path / "elsewhere" / "pg", storage=server.url)
    with pytest.raises(RunError, match=r"has its trials in study.journal; leave out `--storage`"):
        search(space, run=uninterrupted.folder.path, resume=True, storage=server.url)


def test_a_dashboard_stays_open_while_the_server_restarts(tmp_path: Path, server: Server) -> None:
    from wsgiref.util import setup_testing_defaults

    app = optuna_dashboard.wsgi(open_storage(server.url))

    def answer() -> tuple[str, str]:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        seen: list[str] = []
        list(app(environ | {"PATH_INFO": "/api/studies"}, lambda status, *_: seen.append(status)))
        return seen[0], environ["wsgi.errors"].getvalue()

    assert answer() == ("200 OK", "")
    server.stop()
    server.start()
    assert answer() == ("200 OK", "")


@pytest.mark.parametrize("left", [26_000, 45_000])
def test_a_full_disk_ends_a_search_that_goes_on_once_there_is_room(
    space: Path, tmp_path: Path, uninterrupted: Run, left: int
) -> None:
    """The files end wherever the disk did, in the middle of a line."""
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        fill(disk, left=left)
        with pytest.raises(WorkError, match=r"No space left on device; .* make room"):
            search(space, run=disk / "run", serial=True)
        assert len(evomerge.open_run(disk / "run").trials()) > 0
        make_room(disk)
        resumed = search(space, run=disk / "run", serial=True, resume=True)
        pd.testing.assert_frame_equal(resumed.items(), uninterrupted.items())
        pd.testing.assert_frame_equal(genes(resumed), genes(uninterrupted))
        assert not [path for path in (disk / "run").iterdir() if "partial" in path.name]


def test_a_full_disk_has_no_room_for_a_run_folder(space: Path, tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        fill(disk, left=8_000)
        with pytest.raises(RunError, match=r"/run cannot be written: No space left on device$"):
            search(space, run=disk / "run", serial=True)
        assert [path.name for path in disk.iterdir()] == ["filler"]


def test_a_log_on_a_full_disk_is_given_up_in_silence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with small_disk(tmp_path / "disk", megabytes=1) as disk:
        fill(disk, left=0)
        with logging_to(disk / "log.txt"):
            logging.getLogger("evomerge.test").info("not a word")
        assert capsys.readouterr().err == ""
        assert (disk / "log.txt").read_text() == ""
        make_room(disk)
        with logging_to(disk / "log.txt"):
            logging.getLogger("evomerge.test").info("a word")
        assert (disk / "log.txt").read_text().endswith(" INFO evomerge.test: a word\n")
