"""What is measured of a candidate before a search, and what follows for all of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.archive.record import RunRecord
from evomerge.controller import dry_run as trying
from evomerge.controller.dry_run import dry_run
from evomerge.dispatch.job import Job
from evomerge.errors import RequestError, WorkError
from evomerge.evaluate.brief import Brief
from evomerge.types import Failed, Outcome, Scored
from tests.controller.handmade import measure, record_of

MADE = record_of([measure("a"), measure("b")], {"search": 200, "select": 300, "report": 600})
RECORD = replace(MADE, layers=6)


class Stopwatch:
    """An evaluator that takes so long to build a model and for each item, by its own account."""

    build, each, fails = 2.0, 0.01, ""
    jobs: list[Job]

    def __init__(self, brief: Brief) -> None:
        self._brief = brief
        type(self).jobs = []

    def run(self, job: Job) -> Outcome:
        self.jobs.append(job)
        if self.fails:
            return Failed(reason=self.fails)
        assert job.look is not None
        asked = sum(len(self._brief.parts(task, "search")[job.look]) for task in self._brief.items)
        return Scored(
            scores={}, items=(), merge_seconds=self.build, score_seconds=self.each * asked, device="cpu"
        )

    def close(self) -> None:
        """Do nothing."""


@pytest.fixture
def stopwatch(monkeypatch: pytest.MonkeyPatch) -> type[Stopwatch]:
    class Fresh(Stopwatch):
        pass

    monkeypatch.setattr(trying, "Worker", Fresh)
    return Fresh


def run(record: RunRecord = RECORD, *, workers: int = 2) -> trying.DryRun:
    return dry_run(record, workers=workers, tell=lambda _: None)


def test_a_second_candidate_is_measured_and_a_search_follows_from_it(stopwatch: type[Stopwatch]) -> None:
    found = run()
    assert [job.look for job in stopwatch.jobs] == [0, 3, 3]
    assert stopwatch.jobs[0].recipe == stopwatch.jobs[1].recipe != stopwatch.jobs[2].recipe
    assert (found.second, found.items, found.device) == (True, 64, "cpu")  # 60 - 28 of each task
    assert found.build == pytest.approx(2.0, abs=0.1)
    assert found.per_item == pytest.approx(0.01)
    assert found.all_items == 400
    assert found.whole == pytest.approx(6.0, abs=0.1)
    assert found.budget_most == pytest.approx(200 * 6 / 2, rel=0.02)
    assert found.raced
    # five baselines whole, the others a third of their items
    assert found.budget_likely == pytest.approx((5 * 6 + 195 * (2 + 4 / 3)) / 2, rel=0.02)
    # ten on 600 select items, seven on 1200 report items
    assert found.closing == pytest.approx((10 * (2 + 6) + 7 * (2 + 12)) / 2, rel=0.02)
    assert found.peak_memory > 50 << 20


def test_without_a_race_there_is_one_number(stopwatch: type[Stopwatch]) -> None:
    space = RECORD.space.model_copy(update={"racing": False})
    found = run(replace(RECORD, space=space), workers=1)
    assert not found.raced
    assert found.budget_likely == pytest.approx(found.budget_most)


def test_slow_models_are_asked_fewer_items_and_very_slow_ones_once(stopwatch: type[Stopwatch]) -> None:
    stopwatch.each = 0.5  # 4 + 8 items of two tasks: 8 s
    assert run().items == 16
    assert [job.look for job in stopwatch.jobs] == [0, 1, 1]
    stopwatch.each = 30.0
    found = run()
    assert [job.look for job in stopwatch.jobs] == [0]
    assert (found.second, found.items, found.per_item) == (False, 8, 30.0)


def test_a_candidate_that_fails_is_a_reason_not_to_search(stopwatch: type[Stopwatch]) -> None:
    stopwatch.fails = "CUDA out of memory"
    with pytest.raises(WorkError, match="a candidate at the start of the search fails: CUDA out of memory"):
        run()


def test_an_evaluator_that_cannot_start_is_one_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(brief: Brief) -> Stopwatch:
        raise RequestError("no such task")

    monkeypatch.setattr(trying, "Worker", broken)
    with pytest.raises(WorkError, match="no evaluator can start: no such task"):
        run()
