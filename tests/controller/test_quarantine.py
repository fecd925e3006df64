"""Candidates that end workers, or the whole machine: how often they are run, and who else suffers."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.trials import ENDED_WORKERS
from evomerge.controller.quarantine import SITTINGS
from evomerge.dispatch.job import Job
from evomerge.types import Failed, Outcome
from tests.controller.raced import NO_START, measure, record
from tests.controller.test_live import BASELINES, Crash, Simulated, Sitting

BUDGET = 14
START = "racing: {cold_start: 6, margin: 0}\n"


@dataclass
class Deadly(Simulated):
    """Evaluators whose workers some trials end, and whose machine, at some look, another one does."""

    ending: Collection[int] = ()
    bringing_down: tuple[int, int] | None = None

    @property
    def under_way(self) -> list[int]:
        """The trials that are at an evaluator."""
        return [job.trial for job in self._waiting]

    def collect(self) -> list[tuple[Job, Outcome]]:
        """Return the answer to the oldest job, unless one of those under way leaves no time for it."""
        if any((job.trial, job.look) == self.bringing_down for job in self._waiting):
            raise Crash
        return super().collect()

    def _answer(self, job: Job) -> Outcome:
        if job.trial in self.ending:
            return Failed(reason="it ended its worker 2 times", ended_workers=2)
        return super()._answer(job)


def again(sitting: Sitting, number: int) -> None:
    """Have the sampler propose a trial's recipe next."""
    sitting.study.study.enqueue_trial(sitting.study.trials()[number].params)


def failure(sitting: Sitting, number: int) -> str:
    """Return why a trial failed."""
    trial: FrozenTrial = sitting.study.trials()[number]
    assert trial.state == TrialState.FAIL
    return str(trial.user_attrs["failure"])


@pytest.mark.parametrize("deterministic", [True, False])
def test_a_recipe_that_ended_its_workers_is_not_run_again(tmp_path: Path, deterministic: bool) -> None:
    """Also after a restart, and where equal candidates do not inherit."""
    made = replace(record(measure()), deterministic=deterministic)
    first = Sitting(made, tmp_path / "run", 8).run(Deadly(made, ending=[6]))
    assert first.study.trials()[6].user_attrs[ENDED_WORKERS] == 2
    again(first, 6)
    again(first, 7)
    evaluators = Deadly(made)
    second = Sitting(made, tmp_path / "run", 10).run(evaluators)
    assert failure(second, 8) == "it is trial 6 again, which ended its workers, so it is not tried"
    assert ENDED_WORKERS not in second.study.trials()[8].user_attrs
    assert 8 not in {job.trial for job in evaluators.done}
    assert second.study.trials()[9].state != TrialState.FAIL


def test_what_waits_for_a_candidate_that_ends_its_workers_is_not_run_in_its_place(tmp_path: Path) -> None:
    made = replace(record(measure()), deterministic=True)
    Sitting(made, tmp_path / "run", 6).run(Deadly(made))
    second = Sitting(made, tmp_path / "run", 8, workers=2)
    params = {**second.study.trials()[5].params}
    name = next(iter(params))
    params[name] = 0.9 * float(params[name])
    for _ in range(2):
        second.study.study.enqueue_trial(params)
    evaluators = Deadly(made, capacity=2, ending=[6])
    second.run(evaluators)
    assert failure(second, 7).startswith("it is trial 6 again, which")
    assert 7 not in {job.trial for job in evaluators.done}


def test_a_baseline_that_ended_its_workers_is_tried_again_where_nothing_could_be_scored(
    tmp_path: Path,
) -> None:
    """The time limit was too short for any model, say."""
    made = record(measure())
    Sitting(made, tmp_path / "run", 8).run(Deadly(made, ending=range(BASELINES)))
    second = Sitting(made, tmp_path / "run", 8).run(Deadly(made))
    assert second.snapshots[-1].scored >= BASELINES


@pytest.mark.parametrize(("workers", "rules"), [(1, NO_START), (3, NO_START), (3, START)])
@pytest.mark.parametrize("look", [0, 2])
def test_a_candidate_that_brings_the_machine_down_ends_alone(
    tmp_path: Path, workers: int, rules: str, look: int
) -> None:
    made, bad = record(measure(), rules=rules), 7
    for died in range(SITTINGS):
        sitting = Sitting(made, tmp_path / "run", BUDGET, workers=workers)
        evaluators = Deadly(made, capacity=workers, spread=0.1, bringing_down=(bad, look))
        with pytest.raises(Crash):
            sitting.run(evaluators)
        assert sitting.state()[bad] == "RUNNING"
        assert died < 2 or evaluators.under_way == [bad]
    evaluators = Deadly(made, capacity=workers, spread=0.1, bringing_down=(bad, look))
    end = Sitting(made, tmp_path / "run", BUDGET, workers=workers).run(evaluators)
    assert failure(end, bad).startswith(f"{SITTINGS} sittings of the search died while it was at")
    assert end.study.trials()[bad].user_attrs[ENDED_WORKERS] == SITTINGS
    assert len(end.state()) == BUDGET
    assert end.state().count("FAIL") == 1
    assert set(end.state()) == {"COMPLETE", "PRUNED", "FAIL"}


def test_a_sitting_that_was_interrupted_counts_against_nobody(tmp_path: Path) -> None:
    made = record(measure())
    for _ in range(SITTINGS + 1):
        sitting = Sitting(made, tmp_path / "run", BUDGET)
        with pytest.raises(Crash):
            sitting.run(Deadly(made, bringing_down=(7, 0)))
        sitting.live.leave()
    end = Sitting(made, tmp_path / "run", BUDGET).run(Deadly(made))
    assert end.state().count("FAIL") == 0


def test_a_candidate_that_gets_further_each_time_counts_as_innocent(tmp_path: Path) -> None:
    """A controller that is killed time and again, at any moment, does not cost a candidate."""
    made = record(measure())
    for sitting in range(2 * SITTINGS):
        with pytest.raises(Crash):
            Sitting(made, tmp_path / "run", BUDGET).run(
                Deadly(made, spread=0.05, bringing_down=(7, sitting % 2))
            )
    end = Sitting(made, tmp_path / "run", BUDGET).run(Deadly(made))
    assert end.state().count("FAIL") == 0
