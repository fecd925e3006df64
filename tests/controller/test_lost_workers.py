"""A real search whose workers are killed, hang and meet errors, by a task that does what a file says."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest

import evomerge
from evomerge.checkpoints.locate import ZOO
from evomerge.controller.public import prepare
from evomerge.controller.search import Options, execute
from evomerge.controller.tally import Snapshot
from tests.controller.conftest import ALL_SCORED

LIMIT = 16
"""Far more than the first job of a new worker takes, also on a busy machine."""

GRADE = '''

def grade(doc, results):
    """Return what the model got right, after what the oldest file beside this one asks for."""
    import os, signal
    from pathlib import Path

    for order in sorted(Path(__file__).parent.glob("order-*")):
        try:
            order.unlink()
        except FileNotFoundError:
            continue  # another worker has it
        what = order.name.rpartition("-")[2]
        if what == "raise":
            raise MemoryError("no room for the cache")
        os.kill(os.getpid(), signal.SIGKILL if what == "die" else signal.SIGSTOP)
    likelihoods = [likelihood for likelihood, _ in results]
    return {"acc": float(likelihoods.index(max(likelihoods)) == doc["gold"])}
'''

DIE, HANG, RAISE = "die", "hang", "raise"


@dataclass
class Saboteur:
    """Once so many candidates are finished, orders a fault of whoever answers an item next."""

    tasks: Path
    faults: dict[int, str]

    def __call__(self, snapshot: Snapshot) -> None:
        if what := self.faults.pop(snapshot.finished, None):
            (self.tasks / f"order-{snapshot.finished}-{what}").touch()


def test_a_search_survives_workers_that_die_hang_and_raise(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Each costs its candidate a second try. The one that hangs is stopped: it cannot even be asked to go."""
    tasks = tmp_path / "tasks"
    shutil.copytree(ZOO / "tasks", tasks)
    with (tasks / "math_b.yaml").open("a") as file:
        file.write("process_results: !function data.grade\n")
    with (tasks / "data.py").open("a") as file:
        file.write(GRADE)
    space = tmp_path / "space.yaml"
    rules = f"inherit: false\ncandidate_time_limit: {LIMIT}\n"
    space.write_text(ALL_SCORED.replace("zoo:tasks", "tasks") + rules)
    options = Options(workers=2)
    prepared = prepare(space, run=tmp_path / "run", resume=False, changes={"budget": 10}, options=options)
    saboteur = Saboteur(tasks, {5: HANG, 6: DIE, 7: RAISE})
    execute(prepared, options=options, observe=saboteur)
    assert not saboteur.faults
    assert not list(tasks.glob("order-*"))

    run = evomerge.open_run(tmp_path / "run")
    assert run.trials()["state"].tolist() == ["scored"] * 10
    told = [said for said in caplog.messages if "came to nothing" in said]
    reasons = (f"took longer than {LIMIT} seconds;", "ended its worker:", "MemoryError: no room")
    hung, died, raised = (next(said for said in told if why in said) for why in reasons)
    assert len(told) == 3
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"trial {number(raised)}: Traceback" in log
    assert number(died) != number(hung)
    ends = [trial.datetime_complete.timestamp() for trial in run.frozen_trials if trial.datetime_complete]
    assert min(ends[number(hung) + 1 :]) < ends[number(hung)]  # the others did not wait


def number(said: str) -> int:
    """Return the trial that a line of the log is about."""
    return int(said.split()[1])
