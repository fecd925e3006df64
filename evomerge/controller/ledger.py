"""How candidates end, written down: their items, then the trial, then the front if it changed."""

from __future__ import annotations

import logging
from collections.abc import Container, Mapping, Sequence
from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.files import write_json
from evomerge.archive.folder import RunFolder
from evomerge.archive.front import ParetoArchive
from evomerge.archive.items import ItemStore
from evomerge.archive.record import RunRecord
from evomerge.archive.run import feasible
from evomerge.archive.study import StudyRecord
from evomerge.archive.trials import INHERITED, ITEMS, LABEL, Dropped, Waiting
from evomerge.controller.heirs import Bequest
from evomerge.controller.race import Estimated
from evomerge.controller.tally import Tally
from evomerge.errors import RunError
from evomerge.evaluate.looks import first_items
from evomerge.types import Failed, ItemScores, Scored

_log = logging.getLogger(__name__)


class Ledger:
    """The one writer of a run's study, item scores and front, which it keeps in step with its tally."""

    def __init__(self, folder: RunFolder, record: RunRecord, study: StudyRecord) -> None:
        self._folder, self._record, self._study = folder, record, study
        self.tally = Tally(record=record)
        self.items = ItemStore(folder.items, record.items)
        self.items.repair()
        self._written: tuple[ParetoArchive, float | None] | None = None
        self._check_whole()

    def _check_whole(self) -> None:
        """Raise `RunError` if the study has lost trials: going on would mix their scores with others."""
        there = len(self._study.trials())
        if lost := {number for number in self.items.trials() if number >= there}:
            raise RunError(
                f"the study has {there} trials, but {self._folder.items} has scores of trial {max(lost)}: "
                "it was deleted, damaged or replaced; put it back, or start a new run"
            )

    def scored(self, number: int, scored: Scored, *, baseline: bool) -> None:
        """Record all of a candidate's scores."""
        self.items.add(number, "search", scored)
        violations = self._violations(scored.scores)
        met = all(violation <= 0 for violation in violations.values())
        self.tally.add_scored(number, scored.scores, baseline=baseline, feasible=met)
        with self._study.together():
            if (volume := self.tally.hypervolume()) is not None:
                self._study.note(number, hypervolume=volume)
            self._study.tell_scored(number, scored, violations)
        self.write_front()

    def waits(self, number: int, waiting: Waiting) -> None:
        """Record one of the first few that waits for the others: a resumed search need not score it again."""
        self.items.add(number, "search", waiting.so_far)
        self._study.note_waiting(number, waiting)

    def dropped(self, number: int, so_far: Scored, estimated: Estimated, reason: str) -> Dropped:
        """Record a candidate that is given up, and what it is estimated to score; return that."""
        self.items.add(number, "search", so_far)
        dropped = Dropped(
            reason=reason,
            items=_end(so_far),
            so_far=so_far,
            estimates=estimated.scores,
            variances=estimated.variances,
        )
        self.tally.add_dropped(self._record.asked(dropped.items))
        self._study.tell_dropped(number, dropped, self._violations(estimated.scores))
        return dropped

    def dropped_again(self, number: int, dropped: Dropped) -> None:
        """Record a candidate that was given up before, and so is at once."""
        self.tally.add_dropped(0)
        self._study.tell_dropped(number, dropped, self._violations(dropped.estimates))

    def inherited(self, number: int, bequest: Bequest, so_far: Scored | None) -> None:
        """Record a candidate that has the scores of an earlier one, and none of its own but to compare."""
        items = 0 if so_far is None else _end(so_far)
        self.tally.add_inherited(self._record.asked(items))
        _log.info("trial %d is trial %d again, by its %s", number, bequest.hit.trial, bequest.how)
        violations = self._violations(bequest.scores)
        self._study.tell_inherited(
            number, bequest.hit.trial, bequest.scores, violations, how=bequest.how, items=items
        )

    def failed(self, number: int, failed: Failed, *, baseline: bool) -> None:
        """Record a candidate that could not be scored."""
        _log.warning("trial %d failed: %s", number, failed.reason)
        _log.info("trial %d: %s", number, failed.traceback)
        self.tally.add_failed(failed.reason, baseline=baseline)
        self._study.tell_failed(number, failed)

    def count(self, trial: FrozenTrial, known: Container[int]) -> None:
        """Count a trial that an earlier sitting finished; those `known` have items."""
        attributes = trial.user_attrs
        baseline, heir = LABEL in attributes, attributes.get(INHERITED) is not None
        if trial.state != TrialState.FAIL and not heir and trial.number not in known:
            raise RunError(
                f"the study has a score of trial {trial.number}, but {self._folder.items} has none of its "
                "items: it was deleted, damaged or replaced; put it back, or start a new run"
            )
        if trial.state == TrialState.FAIL:
            self.tally.add_failed(attributes.get("failure", ""), baseline=baseline)
        elif trial.state == TrialState.PRUNED:
            self.tally.add_dropped(0 if heir else self._record.asked(attributes[ITEMS]))
        elif heir:
            self.tally.add_inherited(self._record.asked(attributes[ITEMS]))
        else:
            scores = attributes["scores"]
            self.tally.add_scored(trial.number, scores, baseline=baseline, feasible=feasible(trial))

    def _violations(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return by how much each constraint is missed; at most 0 where it is met."""
        asked = zip(self._record.constraints, self._record.space.constraints, strict=True)
        return {measure.name: each.missed_by(scores[measure.name]) for measure, each in asked}

    def write_front(self) -> None:
        """Write the front and its hypervolume, unless they are there as they are."""
        archive, volume = self.tally.archive, self.tally.hypervolume()
        if not archive.front or (self._written is not None and self._written == (archive, volume)):
            return
        names = [measure.name for measure in self._record.objectives]
        rows = [
            {"trial": member.trial, **dict(zip(names, self._raw(member.scores), strict=True))}
            for member in archive.front
        ]
        write_json(self._folder.front, {"hypervolume": volume, "front": rows})
        self._written = archive, volume

    def _raw(self, oriented: Sequence[float]) -> list[float]:
        pairs = zip(self._record.objectives, oriented, strict=True)
        return [measure.oriented(score) for measure, score in pairs]


def _end(so_far: Scored) -> int:
    """Return after how many items of each task the last look was."""
    return max(len(items.items) for items in so_far.items)


def paused(waiting: Waiting, items: Sequence[ItemScores], end: int) -> Waiting:
    """Return how a candidate waited, with its scores on the `end` first items that it had come to."""
    so_far = replace(waiting.so_far, items=tuple(first_items(each, end) for each in items))
    return replace(waiting, so_far=so_far)


def restored(trial: FrozenTrial, items: Sequence[ItemScores]) -> Scored:
    """Return what an earlier sitting scored."""
    attributes = trial.user_attrs
    return Scored(
        scores=attributes["scores"],
        items=tuple(items),
        merge_seconds=attributes["merge_seconds"],
        score_seconds=attributes["score_seconds"],
        device=attributes["device"],
    )
