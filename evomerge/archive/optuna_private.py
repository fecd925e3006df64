"""What is private in Optuna and used here, as of 5.0; no other file touches it.

`Study._storage`, `Study._get_trials` (samplers read trials by it), `FrozenTrial._trial_id` and the
constructor of `Trial`. `tests/controller/test_samplers.py` and `tests/archive/test_study.py` hold each
to its use.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias, cast

from optuna.study import Study
from optuna.trial import FrozenTrial, Trial

Keep: TypeAlias = Callable[[FrozenTrial], bool]


def live(study: Study, trial: FrozenTrial) -> Trial:
    """Return a running trial that another process asked for, so that it can be told."""
    return Trial(study, trial._trial_id)


def remember(study: Study, trial: FrozenTrial, key: str, value: Any) -> None:
    """Attach a JSON value that people need not see to a trial."""
    study._storage.set_trial_system_attr(trial._trial_id, key, value)


def only(study: Study, keep: Keep) -> Study:
    """Return the study as if it had no other trials than those to keep."""
    return cast("Study", _Filtered(study, keep))


class _Filtered:
    def __init__(self, study: Study, keep: Keep) -> None:
        self._seen, self._keep = study, keep

    def __getattr__(self, name: str) -> Any:
        return getattr(self._seen, name)

    @property
    def trials(self) -> list[FrozenTrial]:
        return self.get_trials()

    def get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        return [trial for trial in self._seen.get_trials(*args, **kwargs) if self._keep(trial)]

    def _get_trials(self, *args: Any, **kwargs: Any) -> list[FrozenTrial]:
        return [trial for trial in self._seen._get_trials(*args, **kwargs) if self._keep(trial)]
