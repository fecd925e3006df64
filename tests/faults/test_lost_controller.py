"""The controller of a search on Ray is killed; the next sitting ends what is left of Ray, and goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from tests.faults.leavings import leavings
from tests.faults.searching import Searched


def started(words: Sequence[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "evomerge", "search", *words, "--workers", "1", "--quiet"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def living_in(prefix: str) -> list[psutil.Process]:
    """Return the processes whose home is a folder of this prefix: those of one private Ray."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("HOME", "").startswith(prefix):
                found.append(process)
        except (psutil.AccessDenied, psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
    return found


def test_a_killed_controller_leaves_no_ray_behind_once_the_search_goes_on(
    tmp_path: Path, racing: Searched
) -> None:
    words = [str(racing.file), "--run", str(tmp_path / "run")]
    first = started(words)
    items = tmp_path / "run" / "items.jsonl"
    while not items.exists() or len(items.read_bytes().splitlines()) < 7:
        assert first.poll() is None, first.communicate()
        time.sleep(0.02)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    left = living_in(f"/tmp/evm-{first.pid}-")
    assert left  # its agents at least, which would stay for a minute
    second = started([*words, "--resume"])
    _, err = second.communicate(timeout=300)
    assert second.returncode == 0, err
    assert not [process for process in left if process.is_running()]
    assert not living_in(f"/tmp/evm-{first.pid}-")
    assert not list(Path("/tmp").glob(f"evm-{first.pid}-*"))
    assert leavings(tmp_path / "run") == racing.lived
