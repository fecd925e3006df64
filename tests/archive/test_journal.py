"""The journal is Optuna's, to the byte and to the trial, but for how often it waits for the disk."""

import os
from collections.abc import Iterator
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from evomerge.archive.journal import Journal

STATES = (
    None,
    (TrialState.WAITING,),
    (TrialState.RUNNING,),
    (TrialState.COMPLETE, TrialState.RUNNING),
    tuple(TrialState),
)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How often the disk was waited for, as items."""
    found: list[int] = []
    monkeypatch.setattr(os, "fsync", found.append)
    return found


def a_life(study: optuna.Study) -> Iterator[None]:
    """Pause after each thing that can become of trials, some of them out of order."""
    study.enqueue_trial({"x": 0.5}, user_attrs={"first": True})
    yield
    one, two = study.ask(), study.ask()
    yield
    two.suggest_float("x", 0.0, 1.0)
    two.set_user_attr("key", "value")
    yield
    study.enqueue_trial({"x": 0.25})
    study.tell(two, 1.0)
    yield
    three = study.ask()
    study.tell(three, state=TrialState.PRUNED)
    yield
    study.tell(one, state=TrialState.FAIL)
    yield


def test_trials_are_those_that_optuna_reads(tmp_path: Path) -> None:
    file = tmp_path / "study.journal"
    study = optuna.create_study(storage=Journal(file), study_name="s")
    other = optuna.create_study(storage=study._storage, study_name="other")
    other.ask()
    for _ in a_life(study):
        plain = optuna.load_study(study_name="s", storage=JournalStorage(JournalFileBackend(str(file))))
        for states in STATES:
            expected = plain.get_trials(states=states)
            assert study.get_trials(deepcopy=False, states=states) == expected
            assert study.get_trials(states=states) == expected
    assert [trial.state for trial in other.trials] == [TrialState.RUNNING]


def test_trials_of_another_writer_are_seen(tmp_path: Path) -> None:
    file = tmp_path / "study.journal"
    study = optuna.create_study(storage=Journal(file), study_name="s")
    asked = study.ask()
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    optuna.load_study(study_name="s", storage=Journal(file)).tell(asked.number, 1.0)
    assert [trial.value for trial in study.trials] == [1.0]


def test_a_list_of_trials_is_the_callers_own(tmp_path: Path) -> None:
    study = optuna.create_study(storage=Journal(tmp_path / "study.journal"))
    study.ask()
    study.get_trials(deepcopy=False).clear()
    study.trials[0].params["y"] = 1.0
    assert [trial.params for trial in study.trials] == [{}]


def test_a_study_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError):
        Journal(tmp_path / "study.journal").get_all_trials(7)


def test_lines_are_on_the_disk_at_once_or_together(tmp_path: Path, waits: list[int]) -> None:
    file = tmp_path / "study.journal"
    storage = Journal(file)
    trial = optuna.create_study(storage=storage).ask()
    lines = len(waits)
    assert lines == len(file.read_bytes().splitlines()) > 1
    with storage.together():
        trial.set_user_attr("a", 1)
        with storage.together():
            trial.set_user_attr("b", 2)
        trial.set_user_attr("c", 3)
        assert len(waits) == lines
        assert len(file.read_bytes().splitlines()) == lines + 3  # a process that dies now loses none
    assert len(waits) == lines + 1
    trial.set_user_attr("d", 4)
    assert len(waits) == lines + 2


def test_the_disk_is_waited_for_also_where_the_block_fails(tmp_path: Path, waits: list[int]) -> None:
    storage = Journal(tmp_path / "study.journal")
    trial = optuna.create_study(storage=storage).ask()
    before = len(waits)
    with pytest.raises(ZeroDivisionError), storage.together():
        trial.set_user_attr("a", 1 / 0)
    assert len(waits) == before + 1
