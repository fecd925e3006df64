"""What a private Ray leaves behind, also when its search was killed; and joining a cluster."""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
from ray._private import ray_constants, state

import evomerge
from evomerge.dispatch.cluster import joined_ray, local_ray
from evomerge.dispatch.environment import ON_LOOPBACK, QUIET
from evomerge.dispatch.shape import Node, read_cluster, shape_workers
from evomerge.errors import RequestError
from tests.controller.conftest import SPACE
from tests.dispatch.listening import LOOPBACK, listening

WITH_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

TWO_NODES = """
import sys
from ray.cluster_utils import Cluster
node = {"num_cpus": 3, "object_store_memory": 80 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args=node)
cluster.add_node(**node)
print(cluster.address, flush=True)
sys.stdin.read()
cluster.shutdown()
"""


def test_files_of_dead_searches_are_swept_and_of_living_ones_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/tmp")  # Unix sockets need a short path
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    dead, living = Path(f"/tmp/evm-{process.pid}-x"), Path(f"/tmp/evm-{os.getppid()}-x")
    for folder in (dead, living):
        folder.mkdir()
    gone = Path(f"/tmp/evm-{process.pid}-gone")
    gone.symlink_to("/nowhere")  # there when listed, and not when asked for
    try:
        with local_ray(cpus=1):
            assert not dead.exists()
            assert living.exists()
    finally:
        living.rmdir()
        gone.unlink()
    assert not list(Path("/tmp").glob(f"evm-{os.getpid()}-*"))


def test_a_private_ray_stays_inside_and_leaves_the_process_as_it_was(
    cluster: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where Ray was imported, and has read its settings, before; the next search may use a cluster."""
    monkeypatch.setattr(ray_constants, "ENABLE_RAY_CLUSTER", True)
    before = dict(os.environ)
    with local_ray(cpus=1):
        jobs = state.jobs()  # type: ignore[no-untyped-call]
        assert [job["Entrypoint"] for job in jobs] == ["evomerge"]  # the command line has passwords
        assert os.environ["RAY_AUTH_TOKEN"] != WITH_TOKEN["RAY_AUTH_TOKEN"]
        assert set() < listening() <= LOOPBACK
        (folder,) = Path(tempfile.gettempdir()).glob(f"evm-{os.getpid()}-*")
        assert folder.stat().st_mode & 0o777 == 0o700  # Ray's own is for everybody
    assert dict(os.environ) == before
    assert ray_constants.ENABLE_RAY_CLUSTER
    for name, value in WITH_TOKEN.items():
        monkeypatch.setenv(name, value)
    with joined_ray(cluster):
        assert read_cluster(ray).nodes == [Node(cpus=1, gpus=0)]


def test_a_termination_while_ray_starts_is_an_interrupt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray would exit at once, also in the middle of its start."""
    start = ray.init

    def terminated(**settings: Any) -> None:
        start(**settings)
        signal.raise_signal(signal.SIGTERM)

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ray, "init", terminated)
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        with pytest.raises(KeyboardInterrupt), local_ray(cpus=1):
            raise AssertionError("the search went on")
    finally:
        signal.signal(signal.SIGTERM, before)
    assert not ray.is_initialized()


def test_workers_are_counted_node_by_node(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    with subprocess.Popen(
        [sys.executable, "-c", TWO_NODES],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | QUIET | ON_LOOPBACK,
    ) as nodes:  # fmt: skip
        assert nodes.stdout is not None
        with joined_ray(nodes.stdout.readline().strip()):
            found = read_cluster(ray)
        nodes.communicate()
    assert found.nodes == [Node(cpus=3, gpus=0)] * 2
    assert shape_workers(found, None, threads=2).count == 2


def test_ray_that_runs_already_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: pytest.fail("not ours"))
    with pytest.raises(RequestError, match="Ray runs in this process already"), local_ray(cpus=1):
        pass


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
    environment = os.environ | QUIET | ON_LOOPBACK | WITH_TOKEN
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
            env=os.environ | WITH_TOKEN,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        states = evomerge.open_run(tmp_path / run).trials()["state"].tolist()
        assert states[:5] == ["scored"] * 5
        assert set(states[5:]) <= {"scored", "dropped"}
        assert len(states) == 7


def test_a_cluster_without_room_is_said(cluster: str, tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(SPACE)
    command = ["search", "small.yaml", "--ray-address", cluster, "--workers", "2"]
    done = subprocess.run(
        [sys.executable, "-m", "evomerge", *command],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env=os.environ | WITH_TOKEN,
    )
    assert done.returncode == 2
    assert "use `--workers 1` or fewer" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["small.yaml"]
