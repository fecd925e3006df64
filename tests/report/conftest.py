"""A finished run of two objectives, made by hand, that the report and the dashboard are held to."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from evomerge.archive.run import Run
from evomerge.controller.closing import close_search
from evomerge.types import Split
from tests.controller.handmade import Answering, MadeByHand, measure, record_of, rights

COUNTS: dict[Split, int] = {"search": 20, "select": 20, "report": 40}
HOSTILE = "</title><script>alert('x')</script>\u202e&"
"""What a name may hold that somebody else chose."""


def finished_run(folder: Path) -> Run:
    """Return a run of 70 trials; 7 of them failed, and each tenth misses a constraint."""
    record = record_of([measure("t"), measure("u", up=False)], COUNTS, held_out=[measure("h")])
    models = dict(record.models)
    models["math"] = replace(models["math"], source=f"/models/{HOSTILE}")
    made = MadeByHand(replace(record, models=models), folder)
    (folder / "space.yaml").write_text(f"# {HOSTILE}\n  second: line\n", encoding="utf-8")
    rng = random.Random(1)
    for number in range(63):
        made.add(*(rights(rng.randint(2, 18), 20) for _ in range(2)), feasible=number < 5 or number % 10 > 0)
    for _ in range(7):
        made.fail()
    rng = random.Random(2)
    answers = {
        number: (rights(rng.randint(5, 18), 20), rights(rng.randint(5, 18), 20)) for number in range(70)
    }
    told = {n: (*(each * 2 for each in pair), rights(20 + n % 9, 40)) for n, pair in answers.items()}
    close_search(
        made.folder, made.run, made.store.add, Answering(made.record, {"select": answers, "report": told})
    )
    return made.run


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Return the run; nobody may write into its folder."""
    return finished_run(tmp_path_factory.mktemp("runs") / "run <b>&'\"")
