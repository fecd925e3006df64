"""What is private in Optuna and used here, as of 5.0; no other file touches it.

`Study._storage`, `Study._get_trials` (samplers read trials by it), `_trial_id` of both kinds of trial and
the constructor of `Trial`. `tests/controller/test_samplers.py` and `tests/archive/test_study.py` hold each
to its use.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from typing import Any, TypeAlias, cast

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

View: TypeAlias = Callable[[FrozenTrial], FrozenTrial | None]


def live(study: Study, trial: FrozenTrial) -> Trial:
    """Return a running trial that another process asked for, so that it can be told."""
    return Trial(study, trial._trial_id)


def remember(study: Study, trial: FrozenTrial | Trial, key: str, value: Any) -> None:
    """Attach a JSON value that people need not see to a trial."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def seen(study: Study, view: View) -> Study:
    """Return the study as if its trials were what `view` makes of each; None leaves one out."""
    return cast("Study", _Seen(study, view))


class _Seen:
    def __init__(self, study: Study, view: View) -> None:
        self._study, self._view = study, view

    def __getattr__(self, name: str) -> Any:
        return getattr(self._study, name)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None
    ) -> list[FrozenTrial]:
        return self._viewed(self._study.get_trials(deepcopy=deepcopy), states)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        return self._viewed(self._study._get_trials(deepcopy=deepcopy, use_cache=use_cache), states)

    def _viewed(self, trials: list[FrozenTrial], states: Container[TrialState] | None) -> list[FrozenTrial]:
        viewed = (self._view(trial) for trial in trials)
        return [trial for trial in viewed if trial is not None and (states is None or trial.state in states)]
