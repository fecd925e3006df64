"""Waiting for a search in another process to come so far."""

import subprocess
import time
from pathlib import Path


def wait_for_items(run: Path, count: int, process: subprocess.Popen[str]) -> None:
    """Wait until `count` candidates have left their item scores."""
    file = run / "items.jsonl"
    while process.poll() is None:
        if file.exists() and len(file.read_bytes().splitlines()) >= count:
            return
        time.sleep(0.02)
    raise AssertionError(f"the search ended by itself: {process.communicate()}")
