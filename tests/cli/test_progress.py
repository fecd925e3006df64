"""What people see of a running search: on terminals of several kinds, and in a pipe."""

from __future__ import annotations

import fcntl
import io
import logging
import os
import pty
import re
import struct
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest
from rich.console import Console
from rich.logging import RichHandler

from evomerge.cli.live_view import view
from evomerge.cli.progress import Progress
from evomerge.controller.tally import Best, Snapshot
from evomerge.dispatch.job import Crew
from evomerge.types import Measure
from tests.cli.conftest import Workplace
from tests.cli.terminal import Terminal

UP = Measure(name="maths", task="maths", metric="acc", filter="none", higher_is_better=True)
DOWN = Measure(name="bits", task="stories", metric="bits_per_byte", filter="none", higher_is_better=False)

MIDWAY = Snapshot(
    budget=200,
    scored=30,
    dropped=60,
    inherited=2,
    sampled=85,
    failed=3,
    sampled_failed=3,
    running=4,
    finished_now=95,
    seconds=60.0,
    best=(
        Best(objective=UP, score=0.735, trial=71, baseline=0.610),
        Best(objective=DOWN, score=0.300, trial=42, baseline=0.262),
    ),
    front=5,
    hypervolume=0.01234,
    last_failure="EvaluationError: `maths` of this candidate is nan\nand more",
    items=7_000,
    all_items=20_000,
    crew=Crew(merging=(97,), scoring=(95, 96, 98), idle=1, starting=2, nodes=2),
)
EARLY = replace(
    MIDWAY, scored=0, dropped=0, inherited=0, failed=0, finished_now=0, best=(), hypervolume=None, items=0
)


def shown(snapshot: Snapshot, width: int) -> list[str]:
    console = Console(file=io.StringIO(), force_terminal=True, width=width, color_system=None)
    with console.capture() as captured:
        console.print(view(snapshot, name="two_objectives", width=width))
    return [line.rstrip() for line in captured.get().splitlines()]


def test_everything_is_there_at_a_usual_width() -> None:
    bar, counts, pace, maths, bits, front, workers, failure = shown(MIDWAY, 100)
    assert bar.startswith("two_objectives ━")
    assert bar.endswith("95/200")
    assert counts.split(maxsplit=1)[0] == "30"
    assert "60 dropped · 2 inherited · 3 failed · 4 running · 35% of items" in counts
    assert pace == "time     60 s so far · 95 candidates/min · about 66 s left"
    assert maths == "best     maths ↑  0.735  0.125 better than the best baseline (0.610)  trial 71"
    assert bits == "         bits ↓   0.300  0.038 worse than the best baseline (0.262)  trial 42"
    assert front == "front    5 recipes · hypervolume 0.0123"
    assert workers == "workers  3 scoring (95, 96, 98) · 1 merging (97) · 1 idle · 2 starting · 2 nodes"
    assert failure == "failure  EvaluationError: `maths` of this candidate is nan"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
@pytest.mark.parametrize("snapshot", [EARLY, MIDWAY, replace(MIDWAY, closing=True)])
def test_no_line_is_wider_than_the_screen_and_none_is_broken(snapshot: Snapshot, width: int) -> None:
    lines = shown(snapshot, width)
    assert max(map(len, lines)) <= width
    assert len(lines) == len(shown(snapshot, 100))
    if width < 60:
        assert any(line.endswith("…") for line in lines)


def test_before_the_first_result_nothing_is_made_up() -> None:
    _, counts, pace, workers = shown(replace(EARLY, seconds=3.0), 80)
    assert counts.split(maxsplit=2)[:2] == ["0", "scored"]
    assert pace == "time     3 s so far · no candidate finished yet"
    assert workers.startswith("workers")


def test_the_end_of_a_search_says_that_finalists_are_scored() -> None:
    lines = shown(replace(MIDWAY, closing=True), 80)
    assert "workers  scoring the finalists on select and report items" in lines
    assert not any("merging" in line for line in lines)


def test_others_words_do_not_steer_the_terminal() -> None:
    evil = shown(replace(MIDWAY, last_failure="boo\x1b[2J\x07[red]x"), 80)
    assert evil[-1] == "failure  boo\\x1b[2J\\x07[red]x"


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    """A logger of evomerge whose handlers are gone afterwards."""
    found = logging.getLogger("evomerge.tests.progress")
    found.propagate = False
    yield found
    found.handlers.clear()


def drawn(width: int, logger: logging.Logger, *, environment: dict[str, str] | None = None) -> Terminal:
    """Return a terminal on which four snapshots were drawn, with a warning and an error in between."""
    written = io.StringIO()
    console = Console(
        file=written, force_terminal=True, width=width, height=24, _environ=environment or {"TERM": "xterm"}
    )
    logger.addHandler(RichHandler(console=console, show_time=False, show_path=False))
    terminal = Terminal(width)
    with Progress(console, name="two_objectives") as progress:
        for i, snapshot in enumerate([EARLY, MIDWAY, replace(MIDWAY, scored=31), replace(MIDWAY, scored=32)]):
            progress.show(snapshot)
            progress._live.refresh()
            if i == 1:
                logger.warning("a worker could not start")
            if i == 2:
                logger.error("trial 7 came to nothing")
                console.print("said by others")
    terminal.feed(written.getvalue())
    return terminal


@pytest.mark.parametrize("width", [60, 100])
def test_warnings_and_errors_stand_above_the_live_view_which_leaves_a_line(
    width: int, logger: logging.Logger
) -> None:
    terminal = drawn(width, logger)
    assert terminal.unknown == set()
    assert [line.split()[0] for line in terminal.lines[:3]] == ["WARNING", "ERROR", "said"]
    assert "97/200 done" in terminal.lines[3]
    rest = "".join(terminal.lines[3:])
    assert "━" not in rest  # the bar is gone
    assert "last failure: EvaluationError" in rest


def test_without_colours_there_are_none() -> None:
    written = io.StringIO()
    console = Console(
        file=written, force_terminal=True, width=80, _environ={"TERM": "xterm", "NO_COLOR": "1"}
    )
    console.print(view(MIDWAY, name="x", width=80))
    assert "\x1b[3" not in written.getvalue()
    assert "\x1b[9" not in written.getvalue()


def test_a_dumb_terminal_gets_plain_lines() -> None:
    written = io.StringIO()
    console = Console(file=written, force_terminal=True, width=80, _environ={"TERM": "dumb"})
    with Progress(console) as progress:
        progress.show(MIDWAY)
        progress.show(replace(MIDWAY, scored=31))
    assert "\x1b" not in written.getvalue()
    assert written.getvalue().count(" done  ") == 2  # the first and the last


def test_a_pipe_gets_plain_lines_and_quiet_nothing() -> None:
    for quiet, count in ((False, 1), (True, 0)):
        written = io.StringIO()
        with Progress(Console(file=written, width=1000), quiet=quiet) as progress:
            for _ in range(50):
                progress.show(MIDWAY)
        assert written.getvalue().count("95/200 done") == count


def test_showing_costs_the_controller_next_to_nothing() -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=80, _environ={"TERM": "xterm"})
    with Progress(console, name="x") as progress:
        started = time.perf_counter()
        for _ in range(2000):
            progress.show(MIDWAY)
        assert (time.perf_counter() - started) / 2000 < 1e-3


def on_a_terminal(command: list[str], columns: int) -> tuple[int, str]:
    """Run a command on a terminal of its own; return its exit code and what it wrote."""
    process, fd = pty.fork()
    if process == 0:
        os.execv(command[0], command)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    written = b""
    while True:
        try:
            read = os.read(fd, 1 << 16)
        except OSError:  # nobody holds the other end any more
            break
        if not read:
            break
        written += read
    os.close(fd)
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]), written.decode()


def test_a_real_search_on_a_narrow_terminal(workplace: Workplace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("COLUMNS", raising=False)
    command = [sys.executable, "-m", "evomerge", "search", "space.yaml", "--serial"]
    code, written = on_a_terminal(command, 60)
    terminal = Terminal(60)
    terminal.feed(written)
    text = "\n".join(terminal.lines)
    assert code == 0, text
    assert terminal.unknown == set()
    assert re.search(r"1 (merging|scoring) \(\d\)", written)  # the live view was there …
    assert "time     " not in text  # … and has left nothing behind
    assert "6/6 done" in text
    assert "the finalists on select" in written
