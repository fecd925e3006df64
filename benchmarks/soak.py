"""Searches that are killed again and again: what is lost, counted twice or changed by it, and what hangs.

Three things are killed, at random moments that a seed draws. Controllers: `evomerge search --serial` on the
zoo, killed next to a write or at any time, resumed, killed again, and compared to the last digit with a
search that nobody killed. Workers: processes of a private Ray with two of them. Nodes: of Ray's multi-node
test cluster, each with all its processes; another one then joins. In the last two, candidates end in another
order, so the sampler is `random`, whose candidates hang on their numbers only; they are compared one by one.

`--long N` is a run of N candidates instead (`long_run.py`): memory, open files and bytes on disk of each.
"""

from __future__ import annotations

import argparse
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.long_run import long_run
from evomerge.archive.run import open_run
from evomerge.dispatch.environment import ON_LOOPBACK, QUIET
from tests.faults.killing import Forks
from tests.faults.leavings import leavings
from tests.faults.searching import RACING, SPACE, TWO_OBJECTIVES, Searched, few_items, lived, sitting

ALL_ITEMS = "racing: off\ninherit: off"
CONTROLLED = {
    "cma, racing": SPACE,
    "cma, all items": SPACE.replace(RACING, ALL_ITEMS),
    "random, two objectives": TWO_OBJECTIVES.replace("sampler: cma", "sampler: random"),
}
PARALLEL = SPACE.replace(RACING, ALL_ITEMS).replace("sampler: cma", "sampler: random")
BUDGET = 160  # of a search whose workers or nodes are killed
PER_SEARCH = 5
SITTING_LIMIT, SEARCH_LIMIT = 300.0, 1200.0
SHARES = {"controller": 0.75, "worker": 0.17, "node": 0.08}

CLUSTER = """
import sys
from ray.cluster_utils import Cluster
node = {"object_store_memory": 80 << 20, "include_dashboard": False}
cluster = Cluster(initialize_head=True, head_node_args={**node, "num_cpus": 0, "temp_dir": sys.argv[1]})
print(cluster.address, flush=True)
for _ in sys.stdin:
    print(cluster.add_node(num_cpus=1, **node).all_processes["raylet"][0].process.pid, flush=True)
"""


_COLUMNS = (
    "kills", "searches", "in flight, asked again", "finished, lost", "counted twice", "results changed",
    "hangs", "minutes",
)  # fmt: skip


@dataclass
class Toll:
    """What kills of one kind came to."""

    kills: int = 0
    searches: int = 0
    in_flight: int = 0
    lost: int = 0
    twice: int = 0
    changed: int = 0
    hangs: int = 0
    seconds: float = 0.0
    faults: list[str] = field(default_factory=list)

    @property
    def bad(self) -> int:
        """How much came out that must not."""
        return self.lost + self.twice + self.changed + self.hangs + len(self.faults)

    def row(self, kind: str) -> str:
        """Return a row of the table."""
        counts = (self.kills, self.searches, self.in_flight, self.lost, self.twice, self.changed, self.hangs)
        return f"| {kind} | {' | '.join(map(str, counts))} | {self.seconds / 60:.1f} |"


class Soak:
    """Kills in a folder of its own, by a seed."""

    def __init__(self, folder: Path, forks: Forks, seed: int) -> None:
        self._folder, self._forks = folder, forks
        self._draw = random.Random(seed)
        self._tasks = few_items(folder / "tasks")
        self._references: dict[str, Searched] = {}
        self.tolls = {kind: Toll() for kind in SHARES}

    def _reference(self, name: str, text: str) -> Searched:
        """Return what a search leaves that nobody kills."""
        if name not in self._references:
            folder = self._folder / f"reference {len(self._references)}"
            folder.mkdir()
            self._references[name] = lived(self._forks, folder, self._tasks, text)
        return self._references[name]

    def controllers(self, kills: int) -> None:
        """Kill so many controllers."""
        toll, begun = self.tolls["controller"], time.monotonic()
        while toll.kills < kills:
            name = self._draw.choice(list(CONTROLLED))
            text = CONTROLLED[name].replace("budget: 18", f"budget: 18\nseed: {self._draw.randrange(4)}")
            whole = self._reference(text, text)
            run = self._folder / "run"
            shutil.rmtree(run, ignore_errors=True)
            self._kill_controllers(toll, whole, run, min(PER_SEARCH, kills - toll.kills), name)
            toll.seconds = time.monotonic() - begun
            progress("controller", toll)

    def _kill_controllers(self, toll: Toll, whole: Searched, run: Path, kills: int, name: str) -> None:
        toll.searches += 1
        known: dict[int, Any] = {}
        for _ in range(kills):
            instant = self._draw.randrange(1, whole.instants // 3)
            moment: dict[str, Any] = {"at": instant}
            if self._draw.random() < 0.4:
                moment = {"after": self._draw.uniform(0.2, 4.0)}
            end = sitting(self._forks, whole.file, run, limit=SITTING_LIMIT, **moment)
            toll.kills += end.killed
            toll.hangs += end.code is None
            if end.code == 0:
                break
            if not end.killed:
                toll.faults.append(f"{name}: {end.err[-2000:]}")
                return
            known |= self._look(toll, run)
        end = sitting(self._forks, whole.file, run, limit=SITTING_LIMIT)
        toll.hangs += end.code is None
        if end.code != 0:
            toll.faults.append(f"{name}: {end.err[-2000:]}")
            return
        self._settle(toll, leavings(run), whole.lived, known, exactly=True)

    def _look(self, toll: Toll, run: Path) -> dict[int, Any]:
        """Return what is finished, and count who is in flight, once a controller is dead."""
        if not (run / "study.journal").exists():
            return {}
        trials = open_run(run).frozen_trials
        toll.in_flight += sum(
            trial.state.name == "RUNNING" and "waits" not in trial.user_attrs for trial in trials
        )
        return {trial.number: trial.values for trial in trials if trial.state.is_finished()}

    def _settle(
        self,
        toll: Toll,
        found: dict[str, Any],
        whole: dict[str, Any],
        known: dict[int, Any],
        *,
        exactly: bool,
    ) -> None:
        """Count what is not as it would be, had nobody been killed."""
        trials = {trial["number"]: trial for trial in found["trials"]}
        toll.lost += sum(n not in trials or trials[n]["values"] != values for n, values in known.items())
        rows = [tuple(row[:6]) for row in found["items"]]
        ended = sum(trial["state"] in ("COMPLETE", "PRUNED", "FAIL") for trial in found["trials"])
        toll.twice += len(rows) - len(set(rows)) + max(0, ended - len(whole["trials"]))
        if exactly:
            toll.changed += found != whole
            return
        names = ("number", "state", "params", "values")
        for ours, theirs in zip(found["trials"], whole["trials"], strict=True):
            if any(ours[name] != theirs[name] for name in names):
                toll.changed += 1
                toll.faults.append(f"trial {ours['number']}: {ours}, and not {theirs}")
        if not toll.faults:
            toll.changed += found["items"] != whole["items"]

    def workers(self, kills: int) -> None:
        """Kill so many workers of private Rays."""
        toll, begun = self.tolls["worker"], time.monotonic()
        while toll.kills < kills:
            self._parallel(toll, "worker", kills, ["--workers", "2"], None)
            toll.seconds = time.monotonic() - begun

    def nodes(self, kills: int) -> None:
        """Kill so many nodes of a cluster."""
        toll, begun = self.tolls["node"], time.monotonic()
        while toll.kills < kills:
            with cluster() as nodes:
                self._parallel(toll, "node", kills, ["--ray-address", nodes.address], nodes)
            toll.seconds = time.monotonic() - begun

    def _parallel(self, toll: Toll, kind: str, kills: int, words: Sequence[str], nodes: Nodes | None) -> None:
        text = PARALLEL.replace("budget: 18", f"budget: {BUDGET}")
        whole = self._reference(text, text)
        run = self._folder / "run"
        shutil.rmtree(run, ignore_errors=True)
        toll.searches += 1
        err = self._folder / "err.txt"
        command = [sys.executable, "-m", "evomerge", "search", str(whole.file), "--run", str(run), "--quiet"]
        with err.open("w") as talk, subprocess.Popen(
            [*command, *words], stdout=subprocess.DEVNULL, stderr=talk, env=OPEN if nodes else None,
        ) as search:  # fmt: skip
            end = time.monotonic() + SEARCH_LIMIT
            before = 0
            while search.poll() is None:
                if time.monotonic() > end:
                    toll.hangs += 1
                    search.kill()
                    return
                done = scored(run)
                # whose two tries both come to nothing has failed, and rightly
                ready = before + 8 <= len(done) <= BUDGET - 12 and done >= retried(run)
                if ready and toll.kills < kills and self._kill_one(search.pid, nodes):
                    toll.kills += 1
                    before = len(done) + self._draw.randrange(6)
                    progress(kind, toll)
                time.sleep(self._draw.uniform(0.05, 0.4))
        if search.returncode != 0:
            toll.faults.append(err.read_text()[-2000:])
            return
        toll.in_flight += len(retried(run))
        self._settle(toll, leavings(run), whole.lived, {}, exactly=False)

    def _kill_one(self, search: int, nodes: Nodes | None) -> bool:
        """Kill a worker, or a node, that scores a candidate; return whether there was one."""
        if nodes is not None:
            at_work = [pid for pid in nodes.raylets if scoring(psutil.Process(pid))]
            if not at_work or len(nodes.raylets) < 2:
                return False
            nodes.replace(self._draw.choice(at_work))
            return True
        workers = scoring(psutil.Process(search))
        if not workers:
            return False
        self._draw.choice(workers).kill()
        return True


OPEN = os.environ | QUIET | ON_LOOPBACK | {"RAY_AUTH_MODE": "disabled"}


class Nodes:
    """The nodes that work: two of one CPU each."""

    def __init__(self, owner: subprocess.Popen[str]) -> None:
        assert owner.stdout is not None
        self._owner = owner
        self.address = owner.stdout.readline().strip()
        self.raylets = [self._more(), self._more()]

    def replace(self, raylet: int) -> None:
        """Kill a node as a power cut would, and let another one join."""
        self.raylets.remove(raylet)
        end_all(psutil.Process(raylet))
        self.raylets.append(self._more())

    def _more(self) -> int:
        assert self._owner.stdin is not None
        assert self._owner.stdout is not None
        self._owner.stdin.write("more\n")
        self._owner.stdin.flush()
        return int(self._owner.stdout.readline())


@contextmanager
def cluster() -> Iterator[Nodes]:
    """Give a cluster whose head has no CPUs; end it all afterwards."""
    folder = tempfile.mkdtemp(prefix="evm-soak-", dir="/tmp")  # Unix sockets need a short path
    with subprocess.Popen(
        [sys.executable, "-c", CLUSTER, folder],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=OPEN,
    ) as owner:  # fmt: skip
        try:
            yield Nodes(owner)
        finally:
            end_all(psutil.Process(owner.pid))
            shutil.rmtree(folder, ignore_errors=True)


def end_all(root: psutil.Process) -> None:
    """End a process and all its descendants at once."""
    for process in [root, *root.children(recursive=True)]:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def scoring(root: psutil.Process) -> list[psutil.Process]:
    """Return the workers below a process that are at a candidate."""
    found = []
    for process in root.children(recursive=True):
        with suppress(psutil.NoSuchProcess, psutil.ZombieProcess, IndexError):
            if process.cmdline()[0] == "ray::RayWorker.run":
                found.append(process)
    return found


def scored(run: Path) -> set[int]:
    """Return the candidates that have left their scores."""
    file = run / "items.jsonl"
    found = re.findall(r'{"trial":(\d+),', file.read_text()) if file.exists() else []
    return set(map(int, found))


def retried(run: Path) -> set[int]:
    """Return the candidates that were lost with a worker, and so tried once more."""
    log = run / "log.txt"
    found = re.findall(r"trial (\d+) came to nothing", log.read_text()) if log.exists() else []
    return set(map(int, found))


def progress(kind: str, toll: Toll) -> None:
    """Say how far it is."""
    told = f"{toll.kills} {kind} kills, {toll.changed} changed, {toll.hangs} hangs, {len(toll.faults)} faults"
    print(told, file=sys.stderr, flush=True)


def main() -> None:
    """Kill, count, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--kinds", nargs="+", choices=list(SHARES), default=list(SHARES))
    parser.add_argument("--long", type=int, metavar="N", help="a run of N candidates instead")
    asked = parser.parse_args()
    if asked.long:
        long_run(asked.long, seed=asked.seed)
        return
    share = sum(SHARES[kind] for kind in asked.kinds)
    with tempfile.TemporaryDirectory(prefix="soak-") as temporary, Forks(Path(temporary)) as forks:
        soak = Soak(Path(temporary), forks, asked.seed)
        for kind in asked.kinds:
            kills = max(1, round(asked.kills * SHARES[kind] / share))
            {"controller": soak.controllers, "worker": soak.workers, "node": soak.nodes}[kind](kills)
    print(f"| killed | {' | '.join(_COLUMNS)} |\n{'|---' * (len(_COLUMNS) + 1)}|")
    for kind in asked.kinds:
        print(soak.tolls[kind].row(kind))
        for fault in soak.tolls[kind].faults:
            print(fault, file=sys.stderr)
    sys.exit(
        any(
            toll.changed + toll.hangs + toll.lost + toll.twice + len(toll.faults)
            for toll in soak.tolls.values()
        )
    )


if __name__ == "__main__":
    main()
