"""Searches that race, without models: crashes, failures, deadlines and budgets at every moment."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.trial import TrialState

from evomerge.archive.folder import RunFolder
from evomerge.archive.record import RunRecord
from evomerge.archive.run import Run
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.controller.ledger import Ledger
from evomerge.controller.live import LiveRun
from evomerge.controller.loop import run_loop
from evomerge.controller.sampling import SamplerContext, make_sampler
from evomerge.controller.tally import Snapshot
from evomerge.dispatch.job import Job
from evomerge.errors import RunError
from evomerge.evaluate.looks import parts
from evomerge.seeds import derive
from evomerge.testing.siblings import PARENTS, Siblings
from evomerge.types import Failed, Identified, Outcome
from tests.controller.raced import ENDS, ITEMS, NO_START, Vector, measure, record, scored_on_first

BASELINES = 5


class Crash(BaseException):
    """The end of a controller, at no warning."""


@dataclass
class Simulated:
    """Evaluators that answer one job a turn, the oldest first, from simulated merges.

    `fails` names the trials that fail, and at which look; after `crash_after` answers the controller is gone.
    """

    record: RunRecord
    capacity: int = 1
    fails: Mapping[int, int] = field(default_factory=dict)
    crash_after: int | None = None
    spread: float = 0.5
    done: list[Job] = field(default_factory=list)
    _waiting: list[Job] = field(default_factory=list)

    def __post_init__(self) -> None:
        measures = self.record.measures
        self._siblings = [
            Siblings.on(len(self.record.items[each.task]["search"]), seed=i)
            for i, each in enumerate(measures)
        ]

    def submit(self, job: Job) -> None:
        """Take a job."""
        assert len(self._waiting) < self.capacity
        self._waiting.append(job)

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Return the answer to the oldest job."""
        if self.crash_after is not None and len(self.done) >= self.crash_after:
            raise Crash
        job = self._waiting.pop(0)
        self.done.append(job)
        return [(job, self._answer(job))]

    def withdraw(self) -> list[Job]:
        """Return all that wait: a job is begun when its answer is collected."""
        taken, self._waiting = self._waiting, []
        return taken

    def close(self) -> None:
        """Do nothing."""

    def scores(self, job: Job) -> list[Vector]:
        """Return the scores of a job's recipe on all items of each measure: they hang on nothing else."""
        rng = np.random.default_rng(derive(0, job.recipe.key))
        gains = self.spread * rng.normal(size=len(self._siblings)) - 0.5
        return [
            siblings.merge(np.full(PARENTS, 1 / PARENTS), gain=gain, name=job.recipe.key)
            for siblings, gain in zip(self._siblings, gains, strict=True)
        ]

    def _answer(self, job: Job) -> Outcome:
        if job.identify:
            return Identified(
                digest=job.recipe.key, fingerprint=(), noise=0.0, device="none", merge_seconds=0.0
            )
        if self.fails.get(job.trial, -1) == (job.look or 0):
            return Failed(reason="on purpose")
        start, stop = 0, ITEMS
        if job.look is not None:
            start, stop = list(parts(self.record.looks, ITEMS))[job.look]
        return scored_on_first(self.record, [column[start:stop] for column in self.scores(job)], start)


@dataclass
class Sitting:
    """A controller at work on a run folder, which it makes unless it is there."""

    record: RunRecord
    path: Path
    budget: int
    workers: int = 1

    def __post_init__(self) -> None:
        self.folder = RunFolder(self.path)
        if not self.path.exists():
            self.folder.create(self.record, "")
        self.study = StudyRecord(
            open_storage(self.folder.journal), self.record.study,
            objectives=self.record.objectives, genes=self.record.genome.genes, sampler=None,
        )  # fmt: skip
        context = SamplerContext(
            genes=self.record.genome.genes,
            objectives=self.record.objectives,
            seed=3,
            workers=self.workers,
            trials_before=len(self.study.trials()),
            options={},
        )
        self.study.study.sampler = make_sampler(self.record.space.sampler_choice.name, context)
        self.live = LiveRun(self.folder, self.record, self.study, budget=self.budget)
        self.snapshots: list[Snapshot] = []

    def run(self, dispatcher: Simulated, *, deadline: float | None = None) -> Sitting:
        run_loop(self.live, dispatcher, self.snapshots.append, deadline=deadline)
        return self

    def state(self) -> list[str]:
        """Return the trials' states, which are all there is to tell of them while they run."""
        return [trial.state.name for trial in self.study.trials()]

    def found(self) -> dict[str, Any]:
        """Return all that a search leaves, but for times."""
        run = Run(self.folder, self.record)
        times = ("merge_seconds", "score_seconds")
        return {
            "trials": [
                (
                    trial.number,
                    trial.state,
                    trial.params,
                    trial.values,
                    {key: value for key, value in trial.user_attrs.items() if key not in times},
                )
                for trial in run.frozen_trials
            ],
            "items": run.items().fillna(0.0).sort_values(["trial", "task", "item"]).to_numpy().tolist(),
            "front": json.loads(self.folder.front.read_text()),
        }


def crashed_and_resumed(
    record: RunRecord, path: Path, *, after: Collection[int], budget: int, fails: Mapping[int, int]
) -> dict[str, Any]:
    """Return what a search leaves whose controller is lost after so many answers, time and again."""
    for answers in after:
        lost = Simulated(record, crash_after=answers, fails=fails)
        with pytest.raises(Crash):
            Sitting(record, path, budget).run(lost)
    return Sitting(record, path, budget).run(Simulated(record, fails=fails)).found()


@pytest.mark.parametrize(
    "made",
    [
        record(measure(), rules=NO_START),
        record(measure(), rules=NO_START + "sampler: random\n"),
        replace(record(measure(), rules=NO_START), deterministic=True),
        record(measure("safe"), constraint=measure("t"), bounds="min: 0.4", rules=NO_START),
    ],
    ids=["cma", "random", "identified", "constraint"],
)
def test_a_search_that_crashed_goes_on_as_if_it_had_not(made: RunRecord, tmp_path: Path) -> None:
    """Also in the middle of a candidate, whose looks are lost and taken again."""
    budget, fails = 30, {9: 0, 12: 1}
    whole = Sitting(made, tmp_path / "whole", budget).run(Simulated(made, fails=fails)).found()
    states = [trial[1] for trial in whole["trials"]]
    assert states.count(TrialState.PRUNED) > 5
    assert states.count(TrialState.COMPLETE) > BASELINES + 1
    for i, after in enumerate([(3,), (7, 1, 2), (11, 4, 9, 1), (40,)]):
        found = crashed_and_resumed(made, tmp_path / str(i), after=after, budget=budget, fails=fails)
        assert found == whole


@pytest.mark.parametrize("after", [(6,), (9, 7), (14,), (17, 12)])
def test_a_search_that_crashed_while_the_first_few_waited_goes_on_as_if_it_had_not(
    tmp_path: Path, after: tuple[int, ...]
) -> None:
    made, fails = record(measure(), rules="racing: {cold_start: 9, margin: 0}\n"), {7: 1}
    whole = Sitting(made, tmp_path / "whole", 24).run(Simulated(made, fails=fails)).found()
    found = crashed_and_resumed(made, tmp_path / "crashed", after=after, budget=24, fails=fails)
    assert found == whole


@pytest.mark.parametrize("where", [(StudyRecord, "note_halved"), (Ledger, "write_front")])
def test_a_search_that_crashed_before_a_decision_or_the_front_was_written_does_that_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: tuple[type, str]
) -> None:
    """All of the first few wait then, or the last candidate is scored, and nobody new is asked for before."""

    def crash(at: object, *given: object) -> None:
        if not isinstance(at, Ledger) or at.tally.scored == budget:
            raise Crash

    made = record(measure(), rules="racing: {cold_start: 9, margin: 0}\n")
    budget = 24 if where[0] is StudyRecord else 5
    whole = Sitting(made, tmp_path / "whole", budget).run(Simulated(made)).found()
    cut = Sitting(made, tmp_path / "cut", budget)
    with monkeypatch.context() as patched:
        patched.setattr(*where, crash)
        with pytest.raises(Crash):
            cut.run(Simulated(made))
    assert Sitting(made, tmp_path / "cut", budget).run(Simulated(made)).found() == whole


@pytest.mark.parametrize("after", range(12, 46, 5))
def test_the_first_few_are_finished_by_the_next_sitting(tmp_path: Path, after: int) -> None:
    """Some of them may have left, gone on or got all their items before the crash."""
    made = record(measure(), rules="racing: {cold_start: 9, margin: 0}\n")
    with pytest.raises(Crash):
        Sitting(made, tmp_path / "run", 24).run(Simulated(made, crash_after=after, fails={7: 0}))
    evaluators = Simulated(made, fails={7: 0})
    again = Sitting(made, tmp_path / "run", 24).run(evaluators)
    assert len(again.state()) == 24
    assert set(again.state()) <= {"COMPLETE", "PRUNED", "FAIL"}
    assert again.state().count("FAIL") == 1
    everything = Run(again.folder, again.record).items().groupby("trial").size().to_dict()
    sizes = {t.number: t.user_attrs.get("items", ITEMS) for t in again.study.trials() if t.number != 7}
    assert everything == sizes


def test_the_budget_is_exact_and_every_trial_is_finished_with_two_workers(tmp_path: Path) -> None:
    for i, rules in enumerate((NO_START, "", "racing: {cold_start: 6, margin: 0}\n")):
        made = record(measure("a"), measure("b"), rules=rules)
        evaluators = Simulated(made, capacity=2, fails={8: 0, 11: 1})
        found = Sitting(made, tmp_path / str(i), 40, workers=2).run(evaluators)
        assert len(found.state()) == 40
        assert set(found.state()) == {"COMPLETE", "PRUNED", "FAIL"}
        assert (found.snapshots[-1].finished, found.snapshots[-1].running) == (40, 0)
        assert found.snapshots[-1].items < found.snapshots[-1].all_items
        complete = {t.number for t in found.study.trials(TrialState.COMPLETE)}
        assert {member.trial for member in Run(found.folder, made).archive.front} <= complete


@pytest.mark.parametrize("budget", [6, 8, 14])
def test_a_budget_smaller_than_the_first_few_is_spent_and_the_best_third_is_finished(
    tmp_path: Path, budget: int
) -> None:
    made = record(measure(), rules="racing: {cold_start: 12, margin: 0}\n")
    found = Sitting(made, tmp_path / "run", budget).run(Simulated(made, spread=0.3))
    assert len(found.state()) == budget
    assert set(found.state()) <= {"COMPLETE", "PRUNED"}
    assert budget == 6 or found.state()[BASELINES:].count("COMPLETE") >= 1
    more = Sitting(made, tmp_path / "run", 30).run(Simulated(made, spread=0.3))
    assert len(more.state()) == 30
    assert set(more.state()) <= {"COMPLETE", "PRUNED"}


@pytest.mark.parametrize("look", [0, 1, 3, 5])
def test_the_first_few_do_not_wait_for_one_that_fails(tmp_path: Path, look: int) -> None:
    """At whatever look; nor do they if all of them do."""
    made = record(measure(), rules="racing: {cold_start: 5, margin: 0}\n")
    for fails in ({6: look}, dict.fromkeys(range(5, 10), look)):
        evaluators = Simulated(made, fails=fails, spread=0.2)
        found = Sitting(made, tmp_path / f"{len(fails)}", 16).run(evaluators)
        assert len(found.state()) == 16
        assert set(found.state()) <= {"COMPLETE", "PRUNED", "FAIL"}


def test_looks_at_one_candidate_follow_one_another(tmp_path: Path) -> None:
    """Also among the first few: the evaluator has its model, and would have to build it again."""
    made = record(measure(), rules="racing: {cold_start: 6, margin: 0}\n")
    evaluators = Simulated(made, spread=0.3)
    Sitting(made, tmp_path / "run", 24).run(evaluators)
    turns = [job.trial for job in evaluators.done]
    changes = sum(one != other for one, other in pairwise(turns)) + 1
    looks_of_first = [job for job in evaluators.done if 5 <= job.trial < 11]
    assert len(looks_of_first) > 15
    # each candidate once, and of the first six: two at the second rung again, one or two after that
    assert changes <= 24 + 3 + 2
    for number in set(turns[BASELINES:]):
        looks = [job.look for job in evaluators.done if job.trial == number]
        assert looks == list(range(len(looks)))


def after_answers(count: int, evaluators: Simulated) -> Callable[[], float]:
    """Return a clock that stands at 0 until so many answers have come."""
    return lambda: float(len(evaluators.done) >= count)


def test_candidates_that_have_begun_by_the_deadline_are_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all their looks, on one worker: for the other there were jobs, and it has not come."""
    made, left = record(measure(), rules=NO_START), 0
    for answers in (6, 7, 8, 11):
        evaluators = Simulated(made, capacity=2, spread=0.1)
        sitting = Sitting(made, tmp_path / f"{answers}", 30, workers=2)
        monkeypatch.setattr(time, "monotonic", after_answers(answers, evaluators))
        sitting.run(evaluators, deadline=1.0)
        begun = {job.trial for job in evaluators.done}
        assert {t.number for t in sitting.study.trials() if t.state.is_finished()} == begun
        assert sitting.snapshots[-1].running == 0  # the others are left to a resumed search
        left += sitting.state().count("RUNNING")
        again = Sitting(made, sitting.path, 15).run(Simulated(made))
        assert len(again.state()) == 15
        assert set(again.state()) == {"COMPLETE", "PRUNED"}
    assert left > 0


def test_those_that_wait_at_the_deadline_are_decided_among_themselves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a search that ends while the first few wait would have scored nobody but baselines."""
    made = record(measure(), rules="racing: {cold_start: 12, margin: 0}\n")
    evaluators = Simulated(made, spread=0.1)
    sitting = Sitting(made, tmp_path / "run", 30)
    monkeypatch.setattr(time, "monotonic", after_answers(BASELINES + 10, evaluators))
    sitting.run(evaluators, deadline=1.0)
    states = sitting.state()
    assert set(states) <= {"COMPLETE", "PRUNED"}
    assert states[BASELINES:].count("COMPLETE") > 0
    assert len(states) < 12


def test_items_that_were_lost_are_told_before_the_search_goes_on(tmp_path: Path) -> None:
    made = record(measure(), rules=NO_START)
    first = Sitting(made, tmp_path / "run", 12).run(Simulated(made))
    first.folder.items.unlink()
    with pytest.raises(RunError, match=r"^the study has a score of trial 0, but .*items.jsonl has none of"):
        Sitting(made, tmp_path / "run", 20)


def test_tasks_of_different_sizes_race_together(tmp_path: Path) -> None:
    made = record(
        measure("large"),
        measure("small"),
        constraint=measure("safe"),
        bounds="min: 0.3",
        counts=[ITEMS, 30, 120],
        rules=NO_START,
    )
    found = Sitting(made, tmp_path / "run", 40).run(Simulated(made))
    assert set(found.state()) == {"COMPLETE", "PRUNED"}
    items = Run(found.folder, made).items()
    for trial in found.study.trials(TrialState.PRUNED):
        asked = trial.user_attrs["items"]
        assert asked in ENDS
        sizes = items.query(f"trial == {trial.number}").groupby("task").size().to_dict()
        assert sizes == {"large": asked, "small": min(asked, 30), "safe": min(asked, 120)}
