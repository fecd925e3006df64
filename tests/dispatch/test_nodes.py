"""A search on Ray's multi-node test cluster: a node joins that has nothing, one is killed, all is scored."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import ray

import evomerge
from evomerge.checkpoints.locate import ZOO
from evomerge.controller.public import prepare
from evomerge.controller.search import Options, execute
from evomerge.controller.tally import Snapshot
from evomerge.dispatch.environment import ON_LOOPBACK, QUIET
from evomerge.dispatch.shape import read_cluster
from tests.controller.conftest import SPACE
from tests.dispatch.hidden import hides, unshared

BUDGET = 24
OPEN = os.environ | QUIET | ON_LOOPBACK | {"RAY_AUTH_MODE": "disabled"}

# Sources lie in `here`; a node that joins has the base in `there` and nothing else.
NODES = """
import sys
from ray.cluster_utils import Cluster
node = {"object_store_memory": 80 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "temp_dir": sys.argv[1]})
nodes = [cluster.add_node(num_cpus=1, **node) for _ in range(2)]
print(cluster.address, *[each.all_processes["raylet"][0].process.pid for each in nodes], flush=True)
sys.stdin.read()
"""

# `ray start --address` refuses to join on loopback.
JOINING = """
import sys
from ray._private.node import Node
from ray._private.parameter import RayParams
told = RayParams(
    gcs_address=sys.argv[1], redis_address=sys.argv[1], node_manager_port=0, num_cpus=1, num_gpus=0,
    object_store_memory=80 << 20, min_worker_port=0, max_worker_port=0, include_log_monitor=False,
)
told.dashboard_agent_listen_port = None
Node(told, head=False, shutdown_at_exit=True, spawn_reaper=True)
sys.stdin.read()
"""


class Nodes:
    """Three nodes, the first without CPUs; one more can join, and one be killed."""

    def __init__(self, owner: subprocess.Popen[str], here: Path, cache: Path) -> None:
        self._here, self._cache = here, cache
        assert owner.stdout is not None
        self.address, *raylets = owner.stdout.readline().split()
        self.stays, self.dies = map(int, raylets)
        self.joined: subprocess.Popen[bytes] | None = None

    def join(self) -> None:
        self.joined = subprocess.Popen(
            unshared([sys.executable, "-c", JOINING, self.address], self._here),
            env=OPEN | {"EVOMERGE_CACHE": str(self._cache)},
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
        )  # fmt: skip

    def kill(self) -> None:
        """End a node as a power cut would."""
        end(psutil.Process(self.dies))


def end(*roots: psutil.Process) -> None:
    """End processes and all theirs at once."""
    for process in [each for root in roots for each in [root, *root.children(recursive=True)]]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def works_on(node: int, at: str = "ray::RayWorker.run") -> bool:
    """Return whether a worker of the node with this process scores a candidate, or is at something else."""
    try:
        return at in [each.cmdline()[0] for each in psutil.Process(node).children(recursive=True)]
    except (psutil.NoSuchProcess, IndexError):
        return False


def wait_until(true: Callable[[], bool]) -> None:
    """Wait at most a minute."""
    end = time.monotonic() + 60.0
    while not true():
        assert time.monotonic() < end
        time.sleep(0.05)


@contextmanager
def nodes_of(here: Path, cache: Path) -> Iterator[Nodes]:
    folder = tempfile.mkdtemp(prefix="evm-test-", dir="/tmp")  # Unix sockets need a short path
    with subprocess.Popen(
        [sys.executable, "-c", NODES, folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=OPEN,
    ) as owner:  # fmt: skip
        nodes = Nodes(owner, here, cache)
        try:
            yield nodes
        finally:
            end(*(psutil.Process(each.pid) for each in (owner, nodes.joined) if each is not None))
            if nodes.joined is not None:
                nodes.joined.communicate()
            shutil.rmtree(folder, ignore_errors=True)


class Fate:
    """What befalls the nodes while a search runs, as it shows its progress."""

    def __init__(self, nodes: Nodes) -> None:
        self._nodes = nodes
        self._there = False
        self.spread = self.joined = self.killed = False

    def __call__(self, snapshot: Snapshot) -> None:
        nodes: Nodes = self._nodes
        self.spread = self.spread or (works_on(nodes.stays) and works_on(nodes.dies))
        if not self.spread:
            return
        if nodes.joined is None:
            nodes.join()
            wait_until(lambda: len(read_cluster(ray).nodes) == 4)
        elif not self.joined:
            joined = nodes.joined.pid
            if not self._there:
                wait_until(lambda: works_on(joined, "ray::RayWorker"))
                self._there = True
            self.joined = works_on(joined)
        elif not self.killed and works_on(nodes.dies):
            nodes.kill()
            self.killed = True


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Return a folder with a space, its sources and its tasks."""
    folder = tmp_path / "here"
    for name in ("base", "math", "lang"):
        shutil.copytree(ZOO / "models" / name, folder / name)
    shutil.copytree(ZOO / "tasks", folder / "tasks")
    space = SPACE.replace("zoo:tasks", "tasks").replace("zoo:", "").replace("24", str(BUDGET))
    (folder / "space.yaml").write_text(space + "racing: off\ninherit: false\n")
    shutil.copytree(folder / "base", tmp_path / "there" / "base")
    return folder


@pytest.mark.skipif(not hides(), reason="no mount namespace can be made here (`unshare --mount`)")
def test_a_node_joins_one_dies_and_all_is_scored(
    here: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr("evomerge.dispatch.ray.LOOK_SECONDS", 0.5)
    monkeypatch.setattr("evomerge.dispatch.ray.FRESH_SECONDS", 1.0)  # no room for a new worker is left
    with nodes_of(here, tmp_path / "cache") as nodes:
        options = Options(ray_address=nodes.address, path_map=(f"{here}={tmp_path / 'there'}",))
        prepared = prepare(
            here / "space.yaml", run=tmp_path / "run", resume=False, changes={}, options=options
        )
        fate = Fate(nodes)
        execute(prepared, options=options, observe=fate)
    log = (tmp_path / "run" / "log.txt").read_text()
    assert (fate.spread, fate.joined, fate.killed) == (True, True, True)
    assert evomerge.open_run(tmp_path / "run").trials()["state"].tolist() == ["scored"] * BUDGET
    assert log.count("came to nothing: it ended its worker") == 1
    assert "room for 1 worker(s) more, 3 in all" in log
    sent = [line.split("pool: ")[1].split(" (")[0] for line in log.splitlines() if "was sent to" in line]
    assert sent == ["source `math`", "source `lang`", "the task folder"]
    assert len(list((tmp_path / "cache" / "sources").iterdir())) == 3
