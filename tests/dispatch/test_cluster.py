"""What a private Ray leaves behind, also when its search was killed; and joining a cluster."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import evomerge
from evomerge.dispatch.cluster import ON_LOOPBACK, QUIET, joined_ray, local_ray
from evomerge.errors import RequestError
from tests.controller.conftest import SPACE


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


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    """Run a cluster of one node as its owner would, on loopback, and return its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    folder = tempfile.mkdtemp(prefix="evm-test-", dir="/tmp")  # Unix sockets need a short path
    command = [
        sys.executable,
        "-m",
        "ray.scripts.scripts",
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
    ]
    options = {"port": port, "node-ip-address": "127.0.0.1", "num-cpus": 1, "include-dashboard": "false"}
    settings = [f"--{name}={value}" for name, value in {**options, "temp-dir": folder}.items()]
    environment = os.environ | QUIET | ON_LOOPBACK
    with subprocess.Popen([*command, *settings], env=environment, stdout=subprocess.DEVNULL) as head:
        try:
            wait_for_port(port, head)
            yield f"127.0.0.1:{port}"
        finally:
            head.terminate()
            head.wait(timeout=60)
            shutil.rmtree(folder, ignore_errors=True)


def wait_for_port(port: int, process: subprocess.Popen[bytes]) -> None:
    """Wait until somebody listens."""
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the cluster ended by itself")


def test_a_search_joins_a_cluster_and_leaves_it_running(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    for run in ("one", "two"):
        command = ["search", "small.yaml", "--budget", "7", "--run", run, "--ray-address", cluster]
        done = subprocess.run(
            [sys.executable, "-m", "evomerge", *command],
            capture_output=True, text=True, check=False, cwd=tmp_path, timeout=300,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert evomerge.open_run(tmp_path / run).trials()["state"].tolist() == ["scored"] * 7


def test_a_cluster_without_room_is_said(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    command = ["search", "small.yaml", "--ray-address", cluster, "--workers", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "evomerge", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 2
    assert "use `--workers 1` or fewer" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]
