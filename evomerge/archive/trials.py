"""What the study records of a trial: the names of its attributes, and what they say when read back."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from evomerge.types import Params, Scored

LABEL = "baseline"
KEY = "recipe"
SCORES = "scores"
ESTIMATE, VARIANCES, ITEMS, PREFIX = "estimate", "estimate_variance", "items", "prefix"
"""Of a candidate given up early: its estimated scores, how many items they are from, its scores on those."""
INHERITED, HOW = "inherited_from", "inherited_by"
"""Of a candidate that is an earlier one again: that trial's number, and what shows that they are the same."""
AUDITED = "audited_against"
"""Of a candidate that could have inherited from a trial and was scored all the same: that trial's number."""
CANONICAL = "canonical"
"""The key that candidates share only if their recipes build the same."""
WAITS = "waits"
"""Of one of the first few candidates: how far it had come when it last waited for the others."""
TWIN = "twin_of"
"""Of a candidate that waited for the end of one under way that it is again: that trial's number."""
ENDED_WORKERS = "ended_workers"
"""Of a candidate that failed: how many workers died of it or were ended as they hung, if any."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """A trial the study has recorded and nobody has scored yet.

    `died` counts the last sittings of the search that died while it was at the job `died_at`, if known.
    """

    number: int
    params: Params
    label: str | None
    died: int = 0
    died_at: str | None = None


@dataclass(frozen=True, kw_only=True)
class Dropped:
    """A candidate given up after `items` items: its scores so far, and what they say of all items.

    `estimates` and their `variances` are by measure, `so_far` is what was scored. One that is `origin` again,
    which was given up before, was not scored at all, and has all of this from there.
    """

    reason: str
    items: int
    so_far: Scored
    estimates: Mapping[str, float]
    variances: Mapping[str, float]
    origin: int | None = None


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """One of the first few candidates that waits for the others after a look, with its scores so far.

    It is ranked by `ranked_by`, one number per objective, higher being better. `alike` is the trial whose
    scores it may turn out to inherit, and how far from that one it is.
    """

    look: int
    so_far: Scored
    ranked_by: tuple[float, ...]
    alike: tuple[int, float] | None


@dataclass(frozen=True, kw_only=True)
class Halved:
    """What was decided at a rung: who went on and who was given up, both in the order they were ranked."""

    kept: tuple[int, ...]
    dropped: tuple[int, ...]


def waiting_from(trial: FrozenTrial) -> Waiting | None:
    """Return how a trial last waited, apart from the items; None if it never did."""
    noted = trial.user_attrs.get(WAITS)
    if noted is None:
        return None
    alike = None if noted["alike"] is None else (int(noted["alike"][0]), float(noted["alike"][1]))
    return Waiting(
        look=noted["look"],
        so_far=_scored(noted["scores"], noted),
        ranked_by=tuple(noted["ranked_by"]),
        alike=alike,
    )


def _scored(scores: Mapping[str, float], noted: Mapping[str, Any]) -> Scored:
    """Return scores with what was noted of how they came about; items are kept elsewhere."""
    return Scored(
        scores=scores,
        items=(),
        merge_seconds=noted["merge_seconds"],
        score_seconds=noted["score_seconds"],
        device=noted["device"],
    )


def dropped_from(trial: FrozenTrial) -> Dropped:
    """Return what was recorded of a trial that was given up, apart from the items."""
    attributes = trial.user_attrs
    return Dropped(
        reason=attributes["dropped"],
        items=attributes[ITEMS],
        so_far=_scored(attributes[PREFIX], attributes),
        estimates=attributes[ESTIMATE],
        variances=attributes[VARIANCES],
        origin=attributes.get(INHERITED),
    )


def as_scored(trial: FrozenTrial, state: TrialState | None = None) -> FrozenTrial:
    """Return a trial that was given up as one that scored what it is estimated to; any other as it is.

    `state` is the one it is about to be in: while a sampler is told, the study has it as running. One that a
    crash left with an estimate and still running is no such trial: it is scored again.
    """
    if (state or trial.state) != TrialState.PRUNED or ESTIMATE not in trial.user_attrs:
        return trial
    shown = copy.copy(trial)
    shown.state = TrialState.COMPLETE
    shown.values = trial.user_attrs["values"]
    return shown
