"""What an earlier sitting left under way, as far as the record tells: who need not begin anew."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeAlias

from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.study import StudyRecord
from evomerge.archive.trials import TWIN, Asked, Waiting, waiting_from
from evomerge.controller.candidate import Candidate
from evomerge.controller.heirs import Heirs
from evomerge.controller.ledger import paused
from evomerge.controller.race import Judgement, Race
from evomerge.recipe import Recipe
from evomerge.types import Identified, ItemScores

Items: TypeAlias = Mapping[int, Sequence[ItemScores]]
"""Item scores by trial, in the order in which they were last recorded."""


@dataclass(frozen=True, kw_only=True)
class Left:
    """The running trials of an earlier sitting.

    Those `anew` were not far yet, and begin again. Of the others, `waiting` wait for the rest of the first
    few; what was `decided` when these were halved last is yet to be done; those `going_on` are at their own
    next step, as who they waited for has ended. The rest wait for one that they are again.
    """

    anew: tuple[Asked, ...]
    candidates: tuple[Candidate, ...]
    waiting: Mapping[int, Waiting]
    decided: Mapping[int, Judgement]
    going_on: tuple[int, ...]


@dataclass
class _Sorting:
    anew: list[Asked] = field(default_factory=list)
    candidates: dict[int, Candidate] = field(default_factory=dict)
    waiting: dict[int, Waiting] = field(default_factory=dict)
    going_on: list[int] = field(default_factory=list)


def left_behind(
    study: StudyRecord,
    race: Race,
    heirs: Heirs,
    built: Callable[[Asked], tuple[Recipe, str]],
    known: Items,
    identities: Mapping[int, Identified],
) -> Left:
    """Return what was left, where `race` and `heirs` know what has ended; `built` gives recipe and key."""
    running = {trial.number: trial for trial in study.trials(TrialState.RUNNING)}
    last = race.judged(study.halved()[-1]) if study.halved() else {}
    found = _Sorting()
    for asked in study.unfinished():
        number, attributes = asked.number, running[asked.number].user_attrs
        waiting = waiting_from(running[number]) if number in known else None
        if waiting is None and TWIN not in attributes:
            found.anew.append(asked)
            continue
        recipe, key = built(asked)
        way = Candidate(asked=asked, recipe=recipe, key=key, identified=identities.get(number))
        if waiting is None:
            twin = attributes[TWIN] if attributes[TWIN] in running else None
            found.candidates[number] = replace(way, twin=twin)
            found.going_on += [number] * (twin is None)
            continue
        waiting = paused(waiting, known[number], race.ends[waiting.look])
        at_rung = race.halts(waiting.look)
        bequest = heirs.alike(*waiting.alike) if waiting.alike is not None else None
        found.candidates[number] = replace(
            way, first=at_rung or number in last, so_far=waiting.so_far, look=waiting.look, bequest=bequest
        )
        if at_rung:
            found.waiting[number] = waiting
        elif number not in last:
            found.going_on.append(number)
    return Left(
        anew=tuple(found.anew),
        candidates=tuple(found.candidates.values()),
        waiting=found.waiting,
        decided={n: each for n, each in last.items() if n in found.candidates and n not in found.waiting},
        going_on=tuple(found.going_on),
    )


def by_end(trials: Iterable[FrozenTrial], known: Items) -> list[FrozenTrial]:
    """Return trials in the order in which they ended, which that of their items tells.

    Those without items, which have nothing of their own, come first. Sums and ties hang on that order.
    """
    place = {number: i for i, number in enumerate(known)}
    return sorted(trials, key=lambda trial: place.get(trial.number, -1))
