"""What a search leaves behind, as values to compare: everything but times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from optuna.trial import FrozenTrial

from evomerge.archive.identities import IdentityStore
from evomerge.archive.run import Run, open_run

_TIMES = ("merge_seconds", "score_seconds")
_OF_SITTINGS = "evomerge:died"  # tells how often the controller was lost, and so is meant to differ


def leavings(path: Path) -> dict[str, Any]:
    """Return what is in a run folder: trials, items, identities, front, and the report if there is one."""
    return told(open_run(path))


def told(run: Run) -> dict[str, Any]:
    """Return what a run's folder holds."""
    items = run.items().fillna(0.0).sort_values(["trial", "split", "task", "item"])
    identities = IdentityStore(run.folder.identities).read()
    return {
        "trials": [trial_of(trial) for trial in run.frozen_trials],
        "items": items.to_numpy().tolist(),
        "identities": {
            n: (each.key, _timeless(vars(each.identified or object))) for n, each in identities.items()
        },
        "front": json.loads(run.folder.front.read_text()),
        "report": run.report(),
    }


def trial_of(trial: FrozenTrial) -> dict[str, Any]:
    """Return what the study says of a trial."""
    attributes = _timeless(trial.user_attrs)
    if "waits" in attributes:
        attributes["waits"] = _timeless(attributes["waits"])
    return {
        "number": trial.number,
        "state": trial.state.name,
        "params": trial.params,
        "values": trial.values,
        "attributes": attributes,
        "sampler": {name: each for name, each in trial.system_attrs.items() if name != _OF_SITTINGS},
    }


def _timeless(values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if name not in _TIMES}
