"""What the dashboard is given of a run: readable, complete, and nothing that could change it."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.trial import TrialState
from optuna_dashboard._note import get_note_from_system_attrs

from evomerge.archive.optuna_private import trial_id
from evomerge.archive.run import Run, open_run
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.errors import RunError
from evomerge.recipe import from_yaml
from evomerge.report.dashboard.serving import application
from evomerge.report.dashboard.shown import ReadOnlyError, Recipes, Shown, artifact_id
from tests.controller.handmade import MadeByHand, measure, record_of, rights
from tests.report.conftest import COUNTS


@pytest.fixture(scope="module")
def shown(finished: Run) -> Shown:
    return Shown(finished)


def test_attributes_say_in_words_what_a_trial_is_and_came_to(finished: Run, shown: Shown) -> None:
    trials = shown.get_all_trials(finished.study_id)
    report = finished.report()
    assert report is not None
    parents = [finished.scores(number)["u"] for number in range(3)]
    first = trials[1].user_attrs
    assert first["model"] == "parent math"
    assert first["outcome"] == "scored on all search items"
    assert first["u, search items"] == finished.scores(1)["u"]
    assert first["u, gain over best parent, search items"] == pytest.approx(
        min(parents) - finished.scores(1)["u"]
    )
    assert first["search items"] == 40
    chosen = trials[report["chosen"]["t"]].user_attrs
    assert "best t" in chosen["model"]
    assert {"t, report items", "t, select items", "h, report items"} <= chosen.keys()
    assert trials[65].user_attrs["outcome"] == "failed: broken"
    hidden = {"canonical", "scores", "values", "estimate", "estimate_variance", "prefix", "waits", "genes"}
    assert not hidden & {name for trial in trials for name in trial.user_attrs}


def test_a_trial_that_misses_a_constraint_never_counts_as_best(finished: Run, shown: Shown) -> None:
    missed = shown.get_all_trials(finished.study_id)[10]
    assert (missed.state, missed.values) == (TrialState.PRUNED, None)
    assert missed.user_attrs["outcome"] == "misses a constraint (limit), so it never counts as best"
    assert finished.frozen_trials[10].state == TrialState.COMPLETE  # in the record it is as it was
    assert finished.frozen_trials[10].values


def test_a_candidate_given_up_has_its_estimate(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    for _ in range(5):
        made.add(rights(8, 20))
    made.drop(0.25, 0.01)
    told = Shown(made.run).get_all_trials(made.run.study_id)[5].user_attrs
    assert told["t, search items, estimated"] == 0.25
    assert told["t, gain over best parent, search items, estimated"] == pytest.approx(-0.15)
    assert told["outcome"].startswith("given up early")


def test_notes_explain_the_run_and_its_chosen_trials(finished: Run, shown: Shown) -> None:
    system = shown.get_study_system_attrs(finished.study_id)
    note = get_note_from_system_attrs(system, None)["body"]
    assert "math, lang over base by task_arithmetic" in note
    assert "on 40 report items" in note
    assert "# run \\<b>&'\"" in note  # a folder's name is only text
    assert system["study:metric_names"] == ["t", "u"]
    report = finished.report()
    assert report is not None
    own = get_note_from_system_attrs(system, trial_id(finished.frozen_trials[report["chosen"]["t"]]))["body"]
    assert "best t" in own
    assert "on report items: t 0." in own


def test_a_run_that_goes_on_is_read_on(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    shown, number = Shown(made.run), made.run.study_id
    gain = "t, gain over best parent, search items"
    made.add(rights(4, 20))
    assert shown.get_all_trials(number)[0].user_attrs[gain] == 0  # the only parent so far
    for right in (9, 6):
        made.add(rights(right, 20))
    assert "3 of 200 candidates are finished" in str(shown.get_study_system_attrs(number))
    before = shown.get_all_trials(number)[0].user_attrs[gain]
    made.add(rights(15, 20))
    after = shown.get_all_trials(number)
    assert [trial.user_attrs["outcome"] for trial in after][2:] == ["scored on all search items"] * 2 + [
        "waiting"
    ]
    assert before == after[0].user_attrs[gain] == pytest.approx(-0.25)


def test_every_trial_has_its_recipe_made_when_asked_for(finished: Run, shown: Shown) -> None:
    store = Recipes(shown)
    with store.open_reader(artifact_id(7)) as found:
        assert from_yaml(found.read().decode()) == finished.recipe(7)
    for name in ("zz", "../../run.json", "ffffffff", "", "-1"):
        with pytest.raises(ArtifactNotFound):
            store.open_reader(name)
    with pytest.raises(ReadOnlyError):
        store.write("00000001", io.BytesIO(b"x"))
    with pytest.raises(ReadOnlyError):
        store.remove("00000001")


def test_nothing_that_writes_is_done(finished: Run, shown: Shown) -> None:
    before = contents(finished.folder.path)
    study = optuna.load_study(study_name=finished.record.study, storage=shown)
    for change in (
        lambda: study.set_user_attr("a", 1), lambda: study.ask(), lambda: study.add_trial(study.trials[0]),
        lambda: optuna.delete_study(study_name=study.study_name, storage=shown),
        lambda: shown.set_study_system_attr(0, "a", 1), lambda: shown.set_trial_user_attr(0, "a", 1),
        lambda: shown.set_trial_system_attr(0, "a", 1), lambda: shown.set_trial_intermediate_value(0, 1, 1.0),
        lambda: shown.set_trial_state_values(0, TrialState.FAIL),
    ):  # fmt: skip
        with pytest.raises(ReadOnlyError):
            change()
    assert before == contents(finished.folder.path)


def contents(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_other_studies_of_a_database_are_not_shown(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'all.db'}"
    record = record_of([measure()], COUNTS)
    other = StudyRecord(open_storage(url), "other", objectives=record.objectives, genes=(), sampler=None)
    theirs = trial_id(other.study.ask())
    made = MadeByHand(record, tmp_path / "run")
    StudyRecord(open_storage(url), record.study, objectives=record.objectives, genes=(), sampler=None)
    shown = Shown(open_run(made.folder.path, storage=url))
    assert [study.study_name for study in shown.get_all_studies()] == [record.study]
    with pytest.raises(KeyError):
        shown.get_trial(theirs)
    with pytest.raises(KeyError):
        shown.get_study_id_from_name("other")


def test_a_damaged_closing_report_is_said_at_once(tmp_path: Path) -> None:
    made = MadeByHand(record_of([measure()], COUNTS), tmp_path / "run")
    (tmp_path / "run" / "report.json").write_text("{")
    with pytest.raises(RunError, match="is damaged"):
        application(made.run)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/artifacts/0/7/00000007", "200"),
        ("/artifacts/0/7/00000008", "404"),  # another trial's
        ("/artifacts/0/7/..%2f..%2frun.json", "404"),
        ("/artifacts/0/7/../../../run.json", "404"),
        ("/artifacts/0/../run.json", "404"),
        ("/static/../../../etc/passwd", "403"),
    ],
)
def test_addresses_lead_to_recipes_and_nowhere_else(finished: Run, path: str, status: str) -> None:
    said, body = asked(application(finished), "GET", path)
    assert said.startswith(status), (said, body[:200])
    assert body.startswith(b"models:") == (status == "200")


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_only_reading_is_answered(finished: Run, method: str) -> None:
    for path in ("/api/studies/0", "/api/studies/0/note", "/api/trials/0/tell", "/api/studies/0/rename"):
        said, body = asked(application(finished), method, path)
        assert said == "405 Method Not Allowed"
        assert body == b"evomerge shows runs; it does not change them here\n"


def test_the_dashboard_serves_what_is_shown(finished: Run) -> None:
    said, body = asked(application(finished), "GET", "/api/studies/0", "after=0")
    assert said == "200 OK"
    detail = json.loads(body)
    members = {member.trial for member in finished.archive.front}
    assert {trial["number"] for trial in detail["best_trials"]} == members
    assert detail["objective_names"] == ["t", "u"]
    assert detail["directions"] == ["maximize", "minimize"]
    assert len(detail["trials"]) == 70


def asked(app: Any, method: str, path: str, query: str = "") -> tuple[str, bytes]:
    """Return the status and the body of an answer."""
    said: list[str] = []
    environ = {
        "REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "SCRIPT_NAME": "",
        "SERVER_NAME": "localhost", "SERVER_PORT": "80", "wsgi.url_scheme": "http",
        "HTTP_ACCEPT_ENCODING": "", "wsgi.input": io.BytesIO(), "wsgi.errors": io.StringIO(),
    }  # fmt: skip
    body = b"".join(app(environ, lambda status, headers, error=None: said.append(status)))
    return said[0], body
