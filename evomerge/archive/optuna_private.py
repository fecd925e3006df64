"""What is private in Optuna and used here, as of 5.0; no other file touches it.

`Study._storage`, `Study._get_trials` (samplers read trials by it), `_trial_id` of both kinds of trial, the
constructor of `Trial`, of `JournalStorage` its lock, how it reads on and what it has read, and what a
dashboard reads of a storage: `FrozenStudy` with its `_study_id`, `_system_attrs` of a trial.
`tests/controller/test_samplers.py`, `tests/archive/test_study.py`, `test_journal.py` and
`tests/report/test_dashboard.py` hold each to its use.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Container
from typing import Any, Generic, TypeAlias, TypeVar, cast

from optuna.storages import JournalStorage
from optuna.storages.journal import BaseJournalBackend
from optuna.study import Study
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, Trial, TrialState

T = TypeVar("T")
StudyInStorage: TypeAlias = FrozenStudy
View: TypeAlias = Callable[[FrozenTrial], FrozenTrial | None]


def live(study: Study, trial: FrozenTrial) -> Trial:
    """Return a running trial that another process asked for, so that it can be told."""
    return Trial(study, trial._trial_id)


def remember(study: Study, trial: FrozenTrial | Trial, key: str, value: Any) -> None:
    """Attach a JSON value that people need not see to a trial."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def seen(study: Study, view: View) -> Study:
    """Return the study as if its trials were what `view` makes of each; None leaves one out.

    What it makes of a finished trial is kept.
    """
    return cast("Study", _Seen(study, view))


class _Kept(Generic[T]):
    """What is made of each trial of a study, once it is finished for good."""

    def __init__(self, make: Callable[[FrozenTrial], T]) -> None:
        self._make = make
        self._made: list[T] = []
        self._open: list[int] = []

    def of(self, count: int, at: Callable[[int], FrozenTrial]) -> list[T]:
        """Return what is made of the first `count` trials; only those are asked for that may have changed."""
        again = [*(number for number in self._open if number < count), *range(len(self._made), count)]
        trials = [at(number) for number in again]
        for number, trial in zip(again, trials, strict=True):
            self._made[number : number + 1] = [self._make(trial)]
        self._open = [number for number, t in zip(again, trials, strict=True) if not t.state.is_finished()]
        return self._made[:count]

    def unfinished(self) -> list[T]:
        """Return what was made of those that were not finished when last asked for."""
        return [self._made[number] for number in self._open]


class _Seen:
    def __init__(self, study: Study, view: View) -> None:
        self._study, self._view = study, view
        self._kept = _Kept(view)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._viewed(self._study.get_trials(deepcopy=False), deepcopy, states)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return self._viewed(self._study._get_trials(deepcopy=False, use_cache=use_cache), deepcopy, states)

    def _viewed(
        self, trials: list[FrozenTrial], deepcopy: bool, states: Container[TrialState] | None
    ) -> list[FrozenTrial]:
        viewed = self._kept.of(len(trials), trials.__getitem__)
        found = [each for each in viewed if each is not None and (states is None or each.state in states)]
        return copy.deepcopy(found) if deepcopy else found


def number_of(study: FrozenStudy) -> int:
    """Return a study's number in its storage."""
    return study._study_id


def trial_id(trial: FrozenTrial | Trial) -> int:
    """Return a trial's number in its storage, of all studies there."""
    return trial._trial_id


def dressed_study(study: FrozenStudy, user: dict[str, Any], system: dict[str, Any]) -> FrozenStudy:
    """Return a study with these attributes in the place of its readable ones, and more of the others."""
    shown = copy.copy(study)
    shown.user_attrs, shown.system_attrs = user, {**study.system_attrs, **system}
    return shown


def dressed_trial(
    trial: FrozenTrial, user: dict[str, Any], system: dict[str, Any], *, counts: bool
) -> FrozenTrial:
    """Return a trial with these attributes in the place of its own; pruned if its values must not count."""
    shown = copy.copy(trial)
    shown.user_attrs, shown._system_attrs = user, system
    if not counts:
        shown.state, shown.values = TrialState.PRUNED, None
    return shown


class ReadOn(JournalStorage):
    """A journal's storage that looks again only at trials that are not finished; Optuna's looks at all."""

    def __init__(self, backend: BaseJournalBackend) -> None:
        super().__init__(backend)
        self._kept: dict[int, _Kept[FrozenTrial]] = {}

    def get_all_trials(
        self, study_id: int, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        with self._thread_lock:
            self._sync_with_backend()
            read = self._replay_result
            read.get_study(study_id)  # or raises
            numbers = read._study_id_to_trial_ids[study_id]
            kept = self._kept.setdefault(study_id, _Kept(lambda trial: trial))
            found = kept.of(len(numbers), lambda i: read._trials[numbers[i]])
            if states is not None:
                ended = any(state.is_finished() and state in states for state in TrialState)
                found = [trial for trial in (found if ended else kept.unfinished()) if trial.state in states]
            return copy.deepcopy(found) if deepcopy else found
