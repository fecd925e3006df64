"""How long a cold `evomerge search` takes to its first finished candidate, and how fast it goes on.

The quickstart, through Ray. Two steps are measured in processes of their own: checking the request, and
Ray's start.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path

SPACE = Path("search_spaces/quickstart.yaml").absolute()
RAY = """
import os, time
import ray
from evomerge.dispatch.cluster import local_ray
started = time.perf_counter()
with local_ray(cpus=len(os.sched_getaffinity(0))):
    print(time.perf_counter() - started)
"""
_EVERY = 0.05
_SET_STATE = 6  # what Optuna's journal calls a trial's new state
_FINISHED = (1, 2, 3)


def ended(journal: Path) -> Iterator[float]:
    """Yield when each trial of a run ended, in seconds since 1970."""
    for line in journal.read_text().splitlines():
        try:
            entry = json.loads(line)
        except ValueError:  # the last line may be half written
            return
        if entry["op_code"] == _SET_STATE and entry["state"] in _FINISHED:
            yield datetime.fromisoformat(entry["datetime_complete"]).timestamp()


def search(folder: Path, budget: int, more: Sequence[str]) -> tuple[float, list[float]]:
    """Search; return the seconds until the first worker was ready, and until each trial ended."""
    command = [sys.executable, "-m", "evomerge", "search", str(SPACE), "--run", str(folder)]
    started = time.time()
    process = subprocess.Popen(
        [*command, "--budget", str(budget), "--quiet", *more], stdout=subprocess.DEVNULL
    )
    while not (folder / "run.json").exists() and process.poll() is None:
        time.sleep(_EVERY)
    ready = time.time() - started
    if process.wait():
        raise SystemExit(f"the search ended with code {process.returncode}")
    return ready, [moment - started for moment in ended(folder / "study.journal")]


def seconds(command: Sequence[str]) -> float:
    """Return how long a command takes."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - started


def main() -> None:
    """Print what the start is made of, and the pace after it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--budget", type=int, default=60)
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    checked = seconds([sys.executable, "-m", "evomerge", "check", "--no-dry-run", str(SPACE)])
    ray = float(
        subprocess.run([sys.executable, "-c", RAY], check=True, capture_output=True, text=True).stdout
    )
    with tempfile.TemporaryDirectory() as temporary:
        ready, trials = search(Path(temporary) / "run", asked.budget, ["--workers", str(asked.workers)])
    pace = 60 * (len(trials) - 1) / (trials[-1] - trials[0])
    print("| | s |\n|---|---|")
    print(f"| the request is checked (`evomerge check`) | {checked:.1f} |")
    print(f"| Ray starts | {ray:.1f} |")
    print(f"| the first worker is ready, since the command | {ready:.1f} |")
    print(f"| the first candidate has ended | {trials[0]:.1f} |")
    print(f"| the same without Ray's start | {trials[0] - ray:.1f} |")
    print(f"\n{len(trials)} candidates with {asked.workers} workers: {pace:.0f} per minute after the first")


if __name__ == "__main__":
    main()
