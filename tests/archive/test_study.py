"""The study as the record: what a crash at any moment leaves, and what the next controller makes of it."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution
from optuna.samplers import RandomSampler
from optuna.storages.journal import JournalFileSymlinkLock
from optuna.trial import TrialState

from evomerge.archive.study import StudyRecord, distributions, open_storage, repair_journal
from evomerge.archive.trials import Dropped, Halved, Waiting, as_scored, waiting_from
from evomerge.errors import RunError
from evomerge.space import GeneSpec
from evomerge.types import Failed, Measure, Scored, Value

GENES = (
    GeneSpec(name="weight/math/L0", low=-0.5, high=1.5),
    GeneSpec(name="density/math/L0", low=0.01, high=1.0, log=True),
    GeneSpec(name="method", choices=("ties", "linear")),
)
POINT: dict[str, Value] = {"weight/math/L0": 1.0, "density/math/L0": 0.5, "method": "linear"}
GSM = Measure(name="gsm", task="gsm", metric="acc", filter="none", higher_is_better=True)
WIKI = Measure(name="wiki", task="wiki", metric="ppl", filter="none", higher_is_better=False)

Opener = Callable[[], StudyRecord]


def record(where: str | Path, *, objectives: tuple[Measure, ...] = (GSM,)) -> StudyRecord:
    sampler = RandomSampler(seed=0)
    return StudyRecord(open_storage(where), "run", objectives=objectives, genes=GENES, sampler=sampler)


@pytest.fixture(params=["journal", "sqlite"])
def again(request: pytest.FixtureRequest, tmp_path: Path) -> Opener:
    """Open the same study, as one controller after another would."""
    where = tmp_path / "study.journal" if request.param == "journal" else f"sqlite:///{tmp_path}/study.db"
    return lambda: record(where)


def scored(**scores: float) -> Scored:
    return Scored(scores=scores, items=(), merge_seconds=0.25, score_seconds=1.5, device="cpu")


def finished(study: StudyRecord) -> int:
    return len(study.trials(TrialState.COMPLETE, TrialState.FAIL))


def states(study: StudyRecord) -> list[str]:
    return [trial.state.name for trial in study.trials()]


def test_genes_become_distributions() -> None:
    assert distributions(GENES) == {
        "weight/math/L0": FloatDistribution(-0.5, 1.5),
        "density/math/L0": FloatDistribution(0.01, 1.0, log=True),
        "method": CategoricalDistribution(("ties", "linear")),
    }


def test_a_candidate_is_recorded_before_it_runs(again: Opener) -> None:
    asked = again().ask()
    (trial,) = again().trials()
    assert (trial.number, trial.state, trial.params) == (asked.number, TrialState.RUNNING, asked.params)
    assert set(asked.params) == {gene.name for gene in GENES}
    assert asked.label is None


def test_a_score_is_read_back_by_the_next_controller(again: Opener) -> None:
    study = again()
    asked = study.ask()
    study.note(asked.number, recipe="abc")
    study.tell_scored(asked.number, scored(gsm=0.5, extra=0.25), {})
    (trial,) = again().trials()
    assert (trial.state, trial.values) == (TrialState.COMPLETE, [0.5])
    assert trial.user_attrs == {
        "recipe": "abc", "scores": {"gsm": 0.5, "extra": 0.25},
        "merge_seconds": 0.25, "score_seconds": 1.5, "device": "cpu",
    }  # fmt: skip


def test_constraints_are_recorded_with_the_score(again: Opener) -> None:
    study = again()
    for violation in (-0.1, 0.0, 0.2):
        study.tell_scored(study.ask().number, scored(gsm=0.5), {"mmlu": violation})
    trials = again().trials()
    assert [trial.constraints["mmlu"] for trial in trials] == [-0.1, 0.0, 0.2]
    assert [trial.user_attrs["feasible"] for trial in trials] == [True, True, False]


def test_a_failure_is_a_result_with_a_reason_and_no_score(again: Opener) -> None:
    study = again()
    study.tell_failed(study.ask().number, Failed(reason="x" * 5000))
    (trial,) = again().trials()
    assert (trial.state, trial.values) == (TrialState.FAIL, None)
    assert 1000 < len(trial.user_attrs["failure"]) <= 2045  # what the SQL storages hold
    assert finished(again()) == 1


def dropped(*, so_far: float, estimate: float) -> Dropped:
    return Dropped(
        reason="surely worse",
        items=25,
        so_far=scored(gsm=so_far),
        estimates={"gsm": estimate},
        variances={"gsm": 0.01},
    )


def test_a_candidate_given_up_is_pruned_with_an_estimate_and_is_never_the_best(again: Opener) -> None:
    study = again()
    study.tell_scored(study.ask().number, scored(gsm=0.5), {"mmlu": -0.1})
    study.tell_dropped(study.ask().number, dropped(so_far=0.8, estimate=0.75), {"mmlu": 0.2})
    _, trial = again().trials()
    assert (trial.state, trial.values) == (TrialState.PRUNED, None)
    assert (trial.user_attrs["estimate"], trial.user_attrs["estimate_variance"]) == (
        {"gsm": 0.75},
        {"gsm": 0.01},
    )
    assert (trial.user_attrs["prefix"], trial.user_attrs["items"]) == ({"gsm": 0.8}, 25)
    assert trial.user_attrs["dropped"] == "surely worse"
    assert trial.constraints["mmlu"] == 0.2
    assert again().study.best_trial.number == 0
    assert [best.number for best in again().study.best_trials] == [0]


def test_a_candidate_given_up_in_several_objectives_is_pruned_too(tmp_path: Path) -> None:
    study = record(tmp_path / "study.journal", objectives=(GSM, WIKI))
    both = replace(dropped(so_far=0.8, estimate=0.75), estimates={"gsm": 0.75, "wiki": 1.0}, variances={})
    study.tell_dropped(study.ask().number, both, {})
    (trial,) = record(tmp_path / "study.journal", objectives=(GSM, WIKI)).trials()
    assert as_scored(trial).values == [0.75, 1.0]


def test_samplers_take_the_estimate_of_a_candidate_given_up_as_its_score(again: Opener) -> None:
    study = again()
    study.tell_dropped(study.ask().number, dropped(so_far=0.8, estimate=0.75), {})
    study.tell_scored(study.ask().number, scored(gsm=0.5), {})
    trials = again().trials()
    assert [(as_scored(t).state, as_scored(t).values) for t in trials] == [
        (TrialState.COMPLETE, [0.75]),
        (TrialState.COMPLETE, [0.5]),
    ]
    assert trials[0].state == TrialState.PRUNED  # what is shown is a copy


def test_a_crash_in_the_middle_of_giving_up_leaves_a_trial_to_be_scored(again: Opener) -> None:
    """With the estimate recorded and its state not; then it may get to all its items."""
    study = again()
    asked = study.ask()
    study.note(asked.number, estimate={"gsm": 0.75})
    second = again()
    assert second.unfinished() == [asked]
    assert as_scored(second.trials()[0]).state == TrialState.RUNNING
    second.tell_scored(asked.number, scored(gsm=0.5), {})
    assert as_scored(again().trials()[0]).values == [0.5]


def test_who_waits_and_who_was_halved_is_read_back_by_the_next_controller(again: Opener) -> None:
    study = again()
    number = study.ask().number
    waiting = Waiting(look=1, so_far=scored(gsm=0.1 + 0.2), ranked_by=(1 / 3,), alike=(0, 1e-7))
    study.note_waiting(number, waiting)
    study.note_halved(Halved(kept=(3, 1), dropped=(2,)))
    study.note_halved(Halved(kept=(1,), dropped=()))
    later = again()
    assert waiting_from(later.trials()[number]) == waiting
    assert later.halved() == [Halved(kept=(3, 1), dropped=(2,)), Halved(kept=(1,), dropped=())]


def test_directions_and_names_are_the_measures(tmp_path: Path) -> None:
    study = record(tmp_path / "study.journal", objectives=(GSM, WIKI)).study
    assert [direction.name for direction in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["gsm", "wiki"]


def test_baselines_come_first_and_in_order(again: Opener) -> None:
    study = again()
    study.enqueue("base", POINT)
    study.enqueue("parent math", None)
    study.enqueue("average", dict(POINT, method="ties"))
    assert again().labels() == {"base", "parent math", "average"}
    asked = [again().ask() for _ in range(4)]
    assert [each.number for each in asked] == [0, 1, 2, 3]
    assert [each.label for each in asked] == ["base", "parent math", "average", None]
    assert asked[0].params == POINT
    assert asked[1].params == {}
    assert asked[2].params == dict(POINT, method="ties")


def test_trials_a_crash_left_running_are_handed_out_again_under_their_numbers(again: Opener) -> None:
    first = again()
    first.enqueue("base", None)
    before = [first.ask() for _ in range(4)]
    first.tell_scored(2, scored(gsm=0.5), {})
    del first
    second = again()
    left = second.unfinished()
    assert left == [before[0], before[1], before[3]]
    for asked in left:
        second.tell_scored(asked.number, scored(gsm=0.25), {})
    assert second.ask().number == 4
    assert states(again()) == ["COMPLETE"] * 4 + ["RUNNING"]


def test_a_trial_that_was_cut_off_while_its_genes_were_drawn_is_completed(again: Opener) -> None:
    trial = again().study.ask()
    drawn = trial.suggest_float("weight/math/L0", -0.5, 1.5)
    second = again()
    (asked,) = second.unfinished()
    assert asked.params["weight/math/L0"] == drawn
    assert set(asked.params) == {gene.name for gene in GENES}
    second.tell_scored(asked.number, scored(gsm=1.0), {})
    assert again().trials()[0].params == asked.params


def test_nothing_is_left_of_a_run_that_ended(again: Opener) -> None:
    study = again()
    study.tell_scored(study.ask().number, scored(gsm=1.0), {})
    study.tell_failed(study.ask().number, Failed(reason="no"))
    assert again().unfinished() == []
    assert finished(again()) == 2


def test_trials_are_listed_by_state(again: Opener) -> None:
    study = again()
    for _ in range(3):
        study.ask()
    study.tell_scored(1, scored(gsm=1.0), {})
    study.tell_failed(0, Failed(reason="no"))
    assert [trial.number for trial in study.trials(TrialState.COMPLETE)] == [1]
    assert [trial.number for trial in study.trials(TrialState.COMPLETE, TrialState.FAIL)] == [0, 1]
    assert [trial.number for trial in study.trials()] == [0, 1, 2]


def test_a_journal_torn_in_mid_line_is_written_on_after_repair(tmp_path: Path) -> None:
    file = tmp_path / "study.journal"
    first = record(file)
    asked = first.ask()
    whole = file.read_bytes()
    file.write_bytes(whole + whole.splitlines()[-1][:20])
    repair_journal(file)
    assert file.read_bytes() == whole
    second = record(file)
    assert second.unfinished() == [asked]
    second.tell_scored(asked.number, scored(gsm=1.0), {})
    assert states(record(file)) == ["COMPLETE"]


def test_the_lock_of_a_dead_writer_is_not_waited_for(tmp_path: Path) -> None:
    (tmp_path / "old").mkdir()
    study = record(tmp_path / "old" / "study.journal")
    JournalFileSymlinkLock(str(tmp_path / "old" / "study.journal")).acquire()
    (tmp_path / "old").rename(tmp_path / "new")  # the lock now leads nowhere
    del study
    file = tmp_path / "new" / "study.journal"
    repair_journal(file)
    assert [path.name for path in file.parent.iterdir()] == ["study.journal"]
    record(file).ask()
    assert states(record(file)) == ["RUNNING"]


def test_a_writer_killed_at_any_moment_leaves_a_study_that_goes_on(tmp_path: Path) -> None:
    file = tmp_path / "study.journal"
    script = (
        "import sys; sys.path.insert(0, sys.argv[2])\n"
        "from pathlib import Path\n"
        "from tests.archive.test_study import record, scored\n"
        "study = record(Path(sys.argv[1]))\n"
        "while True:\n"
        "    study.tell_scored(study.ask().number, scored(gsm=1.0), {})\n"
        "    print('told', flush=True)\n"
    )
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", script, str(file), str(root)],
        stdout=subprocess.PIPE, text=True, cwd=root,
    ) as writer:  # fmt: skip
        assert writer.stdout is not None
        for _ in range(5):
            assert writer.stdout.readline() == "told\n"
        writer.send_signal(signal.SIGKILL)
        told = 5 + len(writer.stdout.readlines())
    repair_journal(file)
    study = record(file)
    found = study.trials()
    assert [trial.number for trial in found] == list(range(len(found)))
    assert told <= finished(study) <= told + 1  # the last may be recorded and not yet told of
    for asked in study.unfinished():
        study.tell_scored(asked.number, scored(gsm=0.5), {})
    study.tell_scored(study.ask().number, scored(gsm=0.5), {})
    assert set(states(record(file))) == {"COMPLETE"}


def test_a_relative_path_is_the_file_it_names_wherever_the_process_goes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    study = record(Path("study.journal"))
    os.chdir("elsewhere")
    study.ask()
    assert states(record(tmp_path / "study.journal")) == ["RUNNING"]
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_damaged_journal_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "study.journal").write_text('{garbage\n{"op_code": 0}\n')
    with pytest.raises(
        RunError, match=r"^the study .*study\.journal is damaged \(.*put a copy back, or start"
    ):
        open_storage(tmp_path / "study.journal")
