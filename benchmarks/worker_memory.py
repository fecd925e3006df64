"""What memory the workers of a search take, one and two of them: theirs alone, and what they share.

A search through Ray over three random Llamas in bfloat16; the workers' processes are looked at while it runs.
Of a page that several share, each has its part ("its part"), so that these can be added up.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import psutil
import yaml

from benchmarks.evaluator import as_sources
from benchmarks.memory import write_models
from benchmarks.merging import SHAPES

_EVERY = 0.5
_ROLLUP = ("Rss", "Pss", "Anonymous", "Shared_Clean", "Private_Clean")


def space(folder: Path, method: str) -> Path:
    """Write a space over the models in `folder` and return its file."""
    sources = as_sources(folder)
    content = {
        **sources,
        "merge": {"base": "base", "method": method},
        "objectives": [{"task": "math_b", "metric": "acc"}],
        "tasks": "zoo:tasks",
        "items": {"search": 10, "select": 10, "report": 20},
        "racing": False,
        "baselines": [],
        "batch_size": 20,
        "seed": 0,
    }
    file = folder / "space.yaml"
    file.write_text(yaml.safe_dump(content))
    return file


def peaks(file: Path, workers: int, budget: int) -> dict[int, dict[str, int]]:
    """Search and return the greatest of each figure in bytes, by the process of a worker."""
    run = file.parent / f"run-{workers}"
    command = [sys.executable, "-m", "evomerge", "search", str(file), "--run", str(run), "--quiet"]
    process = subprocess.Popen(
        [*command, "--workers", str(workers), "--budget", str(budget)], stdout=subprocess.DEVNULL
    )
    found: dict[int, dict[str, int]] = {}
    while process.poll() is None:
        for child in psutil.Process(process.pid).children(recursive=True):
            for figure, value in rolled_up(child).items():
                known = found.setdefault(child.pid, {})
                known[figure] = max(known.get(figure, 0), value)
        time.sleep(_EVERY)
    if process.returncode:
        raise SystemExit(f"the search ended with code {process.returncode}")
    return found


def rolled_up(process: psutil.Process) -> dict[str, int]:
    """Return the sums over a worker's memory in bytes; nothing of another process."""
    try:
        if not any(part.startswith("ray::") and "Worker" in part for part in process.cmdline()):
            return {}
        lines = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()
    except (OSError, psutil.Error):  # it has just ended
        return {}
    table = dict(line.split(":", 1) for line in lines[1:])
    return {figure: 1024 * int(table[figure].split()[0]) for figure in _ROLLUP}


def main() -> None:
    """Search with one worker and with two and print what each of them held at most."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SHAPES, default="300M")
    parser.add_argument("--method", default="task_arithmetic")
    parser.add_argument("--budget", type=int, default=6)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_models(folder, SHAPES[asked.size])
        size = (folder / "base" / "model.safetensors").stat().st_size
        print(f"three sources of {size / 1e9:.2f} GB, by {asked.method}\n")
        print("| workers | process | resident, GB | its part | its own | mapped, shared | mapped, alone |")
        print("|---|---|---|---|---|---|---|")
        for workers in (1, 2):
            for pid, each in peaks(space(folder, asked.method), workers, asked.budget).items():
                figures = " | ".join(f"{each[figure] / 1e9:.2f}" for figure in _ROLLUP)
                print(f"| {workers} | {pid} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
