"""What a private Ray leaves behind, also when its search was killed."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from evomerge.dispatch.cluster import joined_ray, local_ray
from evomerge.errors import RequestError


def test_files_of_dead_searches_are_swept_and_of_living_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # Unix sockets need a short path
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    dead, living = Path(f"/tmp/evm-{process.pid}-x"), Path(f"/tmp/evm-{os.getppid()}-x")
    for folder in (dead, living):
        folder.mkdir()
    try:
        with local_ray(cpus=1):
            assert not dead.exists()
            assert living.exists()
    finally:
        living.rmdir()
    assert not list(Path("/tmp").glob(f"evm-{os.getpid()}-*"))


def test_a_cluster_that_does_not_answer_is_said() -> None:
    with pytest.raises(RequestError, match="no Ray cluster answers at"), joined_ray("127.0.0.1:1"):
        pass
