"""A run being written: study, item scores and front, kept in step by one writer."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from optuna.trial import TrialState

from evomerge.archive.files import write_json
from evomerge.archive.folder import RunFolder
from evomerge.archive.items import ItemStore
from evomerge.archive.record import RunRecord
from evomerge.archive.run import feasible
from evomerge.archive.study import KEY, LABEL, Asked, StudyRecord
from evomerge.controller.tally import Snapshot, Tally
from evomerge.dispatch.job import Job
from evomerge.errors import RunError
from evomerge.space.baselines import baseline, baselines, greedy_soup
from evomerge.types import Evaluation, Failed, Scored, Split

_log = logging.getLogger(__name__)
_HOPELESS = 30
_MAY_BE_SCORED = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


class LiveRun:
    """Hands out candidates and takes results; each is recorded before it is used.

    Trials that a crash left running are handed out again under their numbers, so nothing counts twice.
    """

    def __init__(self, folder: RunFolder, record: RunRecord, study: StudyRecord, *, budget: int) -> None:
        self._folder, self._record, self._study = folder, record, study
        self._budget = budget
        self._labels = tuple(each.label for each in baselines(record.genome))
        self._baseline_scores: dict[str, float | None] = {}
        self._items = ItemStore(folder.items, record.items)
        self._items.repair()
        self._check_whole()
        self._tally = Tally(record=record)
        self._under_way: dict[int, Asked] = {}
        self._count_earlier_sittings()
        # where nothing could be scored, what kept the baselines from it may have been put right
        known = study.labels() if self._tally.scored else study.labels(*_MAY_BE_SCORED)
        for label in self._labels:
            if label not in known:
                study.enqueue(label, baseline(record.genome, label).params)
        self._budget += study.repeated_baselines()
        self._left = study.unfinished()

    def _check_whole(self) -> None:
        """Raise `RunError` if the study has lost trials: going on would mix their scores with others."""
        there = len(self._study.trials())
        if lost := {number for number in self._items.trials() if number >= there}:
            raise RunError(
                f"the study has {there} trials, but {self._folder.items} has scores of trial {max(lost)}: "
                "it was deleted, damaged or replaced; put it back, or start a new run"
            )

    def next_job(self) -> Job | None:
        """Return the next candidate, recorded as running; None if there is none to ask for any more."""
        if self._left:
            return self._job(self._left.pop(0))
        if self._tally.finished + len(self._under_way) >= self._budget or self.hopeless:
            return None
        self._go_on_with_soup()
        return self._job(self._study.ask())

    def _go_on_with_soup(self) -> None:
        """Put the next average of a greedy soup in front of the queue, once it is known."""
        genome = self._record.genome
        step = greedy_soup(genome, self._baseline_scores)
        if step is not None and step.soup is None and step.label not in self._study.labels():
            self._study.enqueue(step.label, baseline(genome, step.label).params)

    @property
    def hopeless(self) -> bool:
        """Whether in this sitting every baseline failed, or the first thirty sampled candidates did.

        Models that are sound by themselves cannot be scored here, or no merge of them can.
        """
        if self._tally.scored == 0:
            return self._tally.failed - self._failed_before >= len(self._labels)
        sampled_failed = self._tally.sampled_failed - self._sampled_failed_before
        return self._tally.sampled == 0 and sampled_failed >= _HOPELESS

    def finish(self, number: int, evaluation: Evaluation) -> None:
        """Record a result: items, then the trial, then the front."""
        asked = self._under_way.pop(number)
        if isinstance(evaluation, Failed):
            _log.warning("trial %d failed: %s", number, evaluation.reason)
            _log.info("trial %d: %s", number, evaluation.traceback)
            self._tally.add_failed(evaluation.reason, baseline=asked.label is not None)
            self._note_baseline(asked.label, None)
            self._study.tell_failed(number, evaluation)
            return
        self._items.add(number, "search", evaluation)
        self._note_baseline(asked.label, evaluation.scores)
        violations = self._violations(evaluation)
        changed = self._tally.add_scored(
            number,
            evaluation.scores,
            baseline=asked.label is not None,
            feasible=all(violation <= 0 for violation in violations.values()),
        )
        if (volume := self._tally.hypervolume()) is not None:
            self._study.note(number, hypervolume=volume)
        self._study.tell_scored(number, evaluation, violations)
        if changed:
            self._write_front()

    def record_final(self, number: int, split: Split, scored: Scored) -> None:
        """Record what a trial scored on select or report items."""
        self._items.add(number, split, scored)

    def snapshot(self) -> Snapshot:
        """Return how far the search is."""
        return self._tally.snapshot(budget=self._budget, running=len(self._under_way))

    def _job(self, asked: Asked) -> Job:
        if asked.label is not None:
            recipe = baseline(self._record.genome, asked.label).recipe
        else:
            recipe = self._record.genome.decode(asked.params)
        self._study.note(asked.number, **{KEY: recipe.key, "method": ", ".join(recipe.methods) or "path"})
        self._under_way[asked.number] = asked
        return Job(trial=asked.number, recipe=recipe)

    def _note_baseline(self, label: str | None, scores: Mapping[str, float] | None) -> None:
        """Keep a baseline's score in the first objective, which a greedy soup goes by."""
        first = self._record.objectives[0]
        if label is not None:
            self._baseline_scores[label] = first.oriented(scores[first.name]) if scores else None

    def _violations(self, scored: Scored) -> dict[str, float]:
        """Return by how much each constraint is missed; at most 0 where it is met."""
        asked = zip(self._record.constraints, self._record.space.constraints, strict=True)
        return {measure.name: each.missed_by(scored.scores[measure.name]) for measure, each in asked}

    def _count_earlier_sittings(self) -> None:
        for trial in self._study.trials(TrialState.COMPLETE, TrialState.FAIL):
            self._note_baseline(trial.user_attrs.get(LABEL), trial.user_attrs.get("scores"))
            if trial.state == TrialState.FAIL:
                self._tally.add_failed(
                    trial.user_attrs.get("failure", ""), baseline=LABEL in trial.user_attrs
                )
            else:
                self._tally.add_scored(
                    trial.number,
                    trial.user_attrs["scores"],
                    baseline=LABEL in trial.user_attrs,
                    feasible=feasible(trial),
                )
        self._failed_before = self._tally.failed
        self._sampled_failed_before = self._tally.sampled_failed
        self._tally.begin()

    def _write_front(self) -> None:
        names = [measure.name for measure in self._record.objectives]
        archive = self._tally.archive
        rows = [
            {"trial": member.trial, **dict(zip(names, self._raw(member.scores), strict=True))}
            for member in archive.front
        ]
        content = {"hypervolume": self._tally.hypervolume(), "front": rows}
        write_json(self._folder.front, content)

    def _raw(self, oriented: Sequence[float]) -> list[float]:
        pairs = zip(self._record.objectives, oriented, strict=True)
        return [measure.oriented(score) for measure, score in pairs]
