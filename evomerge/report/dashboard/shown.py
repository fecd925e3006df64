"""A run as a storage that optuna-dashboard reads: one study, readable, with notes and recipes; read only.

How the dashboard keeps notes (`dashboard:note_ver`, `dashboard:note_str:0`, with a trial's number in between)
and Optuna artifacts (`artifacts:ID`) is as of optuna-dashboard 0.21 and Optuna 5.0.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Container, Sequence
from typing import Any, BinaryIO, NoReturn

from optuna.artifacts.exceptions import ArtifactNotFound
from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.optuna_private import StudyInStorage, dressed_study, dressed_trial, number_of, trial_id
from evomerge.archive.run import Run, feasible
from evomerge.archive.trials import KEY
from evomerge.controller.closing_report import ClosingReport, from_json
from evomerge.errors import EvomergeError
from evomerge.recipe import to_yaml
from evomerge.report.dashboard.attributes import Context, context, readable
from evomerge.report.dashboard.notes import study_note, trial_note

_ARTIFACT = "artifacts:{}"
_NAME = re.compile(r"[0-9a-f]{8}")


class ReadOnlyError(RuntimeError):
    """Something tried to change a run that is only shown."""


class Shown(BaseStorage):
    """The study of one run, each trial with the attributes that `readable` makes of the recorded ones.

    Raises `RunError` if the study or the closing report cannot be read.

    Trials that miss a constraint are shown as pruned: the dashboard knows no constraints, and would take them
    for the best. What is made of a finished trial is kept until something else is known beside it.
    """

    def __init__(self, run: Run) -> None:
        self._run, self._below = run, run.opened
        self._study = run.study_id
        self._known: Context | None = None
        self._kept: dict[int, FrozenTrial] = {}
        self._report()  # says so if it is damaged

    def recipe(self, number: int) -> str:
        """Return a trial's recipe as YAML. Raises `EvomergeError` if it has none (yet)."""
        found = self._below.get_trial(self.get_trial_id_from_study_id_trial_number(self._study, number))
        return to_yaml(self._run.recipe_of(found))

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        del deepcopy  # these are copies, and nobody can change them to any effect
        self._check(study_id)
        recorded = self._below.get_all_trials(study_id, deepcopy=False)
        known = context(self._run.record, recorded, self._report())
        if known != self._known:
            self._known, self._kept = known, {}
        found = [self._dressed(trial, known) for trial in recorded]
        return [trial for trial in found if states is None or trial.state in states]

    def _dressed(self, trial: FrozenTrial, known: Context) -> FrozenTrial:
        kept = self._kept.get(trial.number)
        if kept is not None:
            return kept
        counts = trial.state != TrialState.COMPLETE or feasible(trial)
        shown = dressed_trial(trial, readable(trial, known), _artifacts(trial), counts=counts)
        if trial.state.is_finished():
            self._kept[trial.number] = shown
        return shown

    def _report(self) -> ClosingReport | None:
        written = self._run.report()
        return from_json(written) if written is not None else None

    def get_trial(self, trial_id: int) -> FrozenTrial:
        trial = self._below.get_trial(trial_id)
        if self.get_trial_id_from_study_id_trial_number(self._study, trial.number) != trial_id:
            raise KeyError(trial_id)  # of another study in the same database
        return self._dressed(trial, self._known or context(self._run.record, [trial], None))

    def get_trial_id_from_study_id_trial_number(self, study_id: int, trial_number: int) -> int:
        self._check(study_id)
        return self._below.get_trial_id_from_study_id_trial_number(study_id, trial_number)

    def get_all_studies(self) -> list[StudyInStorage]:
        studies = [study for study in self._below.get_all_studies() if number_of(study) == self._study]
        return [dressed_study(study, self._described(), self._notes()) for study in studies]

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        self._check(study_id)
        return self._described()

    def _described(self) -> dict[str, Any]:
        return {**self._run.record.summary(), "run folder": str(self._run.folder.path)}

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        self._check(study_id)
        return {**self._below.get_study_system_attrs(study_id), **self._notes()}

    def _notes(self) -> dict[str, Any]:
        """Return the note of the study and those of baselines and finalists, as the dashboard keeps them."""
        trials, report = self._below.get_all_trials(self._study, deepcopy=False), self._report()
        finished = sum(trial.state.is_finished() for trial in trials)
        notes = {"": study_note(self._run.folder, self._run.record, report, finished)}
        if report is not None:
            there = (row for row in report.rows if row.trial < len(trials))
            notes |= {f"{trial_id(trials[row.trial])}:": trial_note(row, report) for row in there}
        return {
            **{f"dashboard:{whose}note_ver": 1 for whose in notes},
            **{f"dashboard:{whose}note_str:0": text for whose, text in notes.items()},
        }

    def get_study_id_from_name(self, study_name: str) -> int:
        if study_name != self._run.record.study:
            raise KeyError(study_name)
        return self._study

    def get_study_name_from_id(self, study_id: int) -> str:
        self._check(study_id)
        return self._run.record.study

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        self._check(study_id)
        return self._below.get_study_directions(study_id)

    def _check(self, study_id: int) -> None:
        if study_id != self._study:
            raise KeyError(study_id)

    def create_new_study(self, directions: Sequence[StudyDirection], study_name: str | None = None) -> int:
        _refuse()

    def delete_study(self, study_id: int) -> None:
        _refuse()

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        _refuse()

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        _refuse()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        _refuse()

    def set_trial_param(
        self, trial_id: int, param_name: str, param_value_internal: float, distribution: BaseDistribution
    ) -> None:
        _refuse()

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        _refuse()

    def set_trial_intermediate_value(self, trial_id: int, step: int, intermediate_value: float) -> None:
        _refuse()

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        _refuse()

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        _refuse()


def _refuse() -> NoReturn:
    raise ReadOnlyError("evomerge shows runs; it does not change them here")


def _artifacts(trial: FrozenTrial) -> dict[str, Any]:
    """Return the recipe of a trial that was decoded, as Optuna notes an artifact."""
    if KEY not in trial.user_attrs:
        return {}
    name = artifact_id(trial.number)
    noted = {
        "artifact_id": name,
        "filename": f"trial-{trial.number}-recipe.yaml",
        "mimetype": "application/yaml",
        "encoding": None,
    }
    return {_ARTIFACT.format(name): json.dumps(noted)}


def artifact_id(number: int) -> str:
    """Return by what name a trial's recipe is asked for: hex digits, as in the dashboard's addresses."""
    return f"{number:08x}"


class Recipes:
    """The recipes of a run's trials as a store of artifacts, made when asked for: no file is opened."""

    def __init__(self, shown: Shown) -> None:
        self._shown = shown

    def open_reader(self, artifact_id: str) -> BinaryIO:
        """Return a recipe's YAML. Raises `ArtifactNotFound` if there is none by this name."""
        if not _NAME.fullmatch(artifact_id):
            raise ArtifactNotFound(f"no recipe {artifact_id}")
        try:
            return io.BytesIO(self._shown.recipe(int(artifact_id, 16)).encode())
        except (KeyError, EvomergeError) as error:
            raise ArtifactNotFound(f"no recipe {artifact_id}") from error

    def write(self, artifact_id: str, content_body: BinaryIO) -> None:
        """Refuse: nothing is written here."""
        _refuse()

    def remove(self, artifact_id: str) -> None:
        """Refuse: nothing is deleted here."""
        _refuse()
