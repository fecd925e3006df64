"""A run being written: study, item scores and front, kept in step by one writer."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.files import write_json
from evomerge.archive.folder import RunFolder
from evomerge.archive.items import ItemStore
from evomerge.archive.record import RunRecord
from evomerge.archive.run import feasible
from evomerge.archive.study import KEY, LABEL, Asked, Dropped, StudyRecord
from evomerge.controller.race import Judgement, Race, Verdict
from evomerge.controller.tally import Snapshot, Tally
from evomerge.dispatch.job import Job
from evomerge.errors import RunError
from evomerge.evaluate.looks import extended
from evomerge.recipe import Recipe
from evomerge.space.baselines import baseline, baselines, greedy_soup
from evomerge.types import Failed, ItemScores, Outcome, Scored, Split

_log = logging.getLogger(__name__)
_HOPELESS = 30
_MAY_BE_SCORED = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


@dataclass(frozen=True, kw_only=True)
class _UnderWay:
    """A candidate that was asked for and is not finished; `first` is one of the first few of the race."""

    asked: Asked
    recipe: Recipe
    first: bool = False
    so_far: Scored | None = None
    look: int = -1


class LiveRun:
    """Hands out candidates look by look and takes results; each is recorded before it is used.

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
        self._race = Race(record)
        self._under_way: dict[int, _UnderWay] = {}
        self._next: deque[Job] = deque()  # further looks at candidates under way
        self._positions: dict[int, int] = {}
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

    def next_job(self, *, begin: bool = True) -> Job | None:
        """Return the next look at a candidate under way, or a new one, recorded as running.

        None if there is nothing to ask for now, or only what shall not `begin` any more. Those that wait for
        one another wait no longer once nobody else will come.
        """
        if not self._next and self._all_wait and not (begin and self._may_begin):
            self._settle(self._race.release(all_are_in=True))
        if self._next:
            return self._next.popleft()
        if not begin:
            return None
        if self._left:
            return self._begin(self._left.pop(0))
        if not self._may_begin:
            return None
        self._go_on_with_soup()
        return self._begin(self._study.ask())

    @property
    def _may_begin(self) -> bool:
        """Whether there are candidates left to ask for."""
        spent = self._tally.finished + len(self._under_way) >= self._budget
        return bool(self._left) or not (spent or self.hopeless)

    @property
    def _all_wait(self) -> bool:
        """Whether the candidates under way all wait for one another."""
        return len(self._race.waiting) == len(self._under_way)

    def has_begun(self, trial: int) -> bool:
        """Return whether an evaluator has given any result on a trial under way."""
        return self._under_way[trial].so_far is not None

    def put_off(self, trial: int) -> None:
        """Leave a trial that no evaluator has begun, recorded as running, to a resumed search."""
        del self._under_way[trial]

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

    def take(self, job: Job, outcome: Outcome) -> None:
        """Take in what came back of a job: the next look, or the end of its candidate."""
        number = job.trial
        if isinstance(outcome, Failed):
            self._fail(number, outcome)
        elif isinstance(outcome, Scored):
            self._look(number, job, outcome)
        self._settle(self._race.release())

    def _look(self, number: int, job: Job, part: Scored) -> None:
        """Put a look's scores to those before, and go by what the race says."""
        way = self._under_way[number]
        so_far = extended(way.so_far, part, self._record.measures)
        if job.look is None:
            self._finish(number, so_far)
            return
        self._under_way[number] = replace(way, so_far=so_far, look=job.look)
        self._settle({number: self._race.judge(number, so_far, job.look, first=way.first)})

    def _settle(self, judgements: Mapping[int, Judgement]) -> None:
        """Go by what the race says; who goes on is next, while its model is still there."""
        next_looks = []
        for number, judgement in judgements.items():
            way = self._under_way[number]
            assert way.so_far is not None  # only what was looked at is judged
            match judgement.verdict:
                case Verdict.GO_ON:
                    next_looks.append(Job(trial=number, recipe=way.recipe, look=way.look + 1))
                case Verdict.DONE:
                    self._finish(number, way.so_far)
                case Verdict.DROP:
                    self._drop(number, way.so_far, judgement.reason)
                case Verdict.WAIT:
                    pass
        self._next.extendleft(reversed(next_looks))

    def _fail(self, number: int, failed: Failed) -> None:
        way = self._under_way.pop(number)
        if way.first:
            self._race.leave_start()
        _log.warning("trial %d failed: %s", number, failed.reason)
        _log.info("trial %d: %s", number, failed.traceback)
        self._tally.add_failed(failed.reason, baseline=way.asked.label is not None)
        self._note_baseline(way.asked.label, None)
        self._study.tell_failed(number, failed)

    def _finish(self, number: int, scored: Scored) -> None:
        """Record all of a candidate's scores: items, then the trial, then the front."""
        asked = self._under_way.pop(number).asked
        self._items.add(number, "search", scored)
        self._note_baseline(asked.label, scored.scores)
        violations = self._violations(scored.scores)
        changed = self._tally.add_scored(
            number,
            scored.scores,
            baseline=asked.label is not None,
            feasible=all(violation <= 0 for violation in violations.values()),
        )
        self._race.learn(number, scored, self._tally.archive)
        if (volume := self._tally.hypervolume()) is not None:
            self._study.note(number, hypervolume=volume)
        self._study.tell_scored(number, scored, violations)
        if changed:
            self._write_front()

    def _drop(self, number: int, so_far: Scored, reason: str) -> None:
        """Record a candidate that is given up, and what it is estimated to score."""
        del self._under_way[number]
        self._items.add(number, "search", so_far)
        estimated = self._race.estimate(so_far)
        dropped = Dropped(
            reason=reason,
            items=max(len(items.items) for items in so_far.items),
            so_far=so_far,
            estimates=estimated.scores,
            variances=estimated.variances,
        )
        self._tally.add_dropped(_asked_items(so_far.items))
        self._study.tell_dropped(number, dropped, self._violations(estimated.scores))

    def record_final(self, number: int, split: Split, scored: Scored) -> None:
        """Record what a trial scored on select or report items."""
        self._items.add(number, split, scored)

    def snapshot(self) -> Snapshot:
        """Return how far the search is."""
        return self._tally.snapshot(budget=self._budget, running=len(self._under_way))

    def _begin(self, asked: Asked) -> Job:
        """Return the first job of a candidate: all items of a baseline, the first look at any other."""
        recipe = self._recipe(asked)
        self._study.note(asked.number, **{KEY: recipe.key, "method": ", ".join(recipe.methods) or "path"})
        first = False
        if asked.label is None:
            position = self._positions.setdefault(asked.number, len(self._positions))
            first = self._race.enters_start(position)
        self._under_way[asked.number] = _UnderWay(asked=asked, recipe=recipe, first=first)
        raced = asked.label is None and len(self._race.ends) > 1
        return Job(trial=asked.number, recipe=recipe, look=0 if raced else None)

    def _recipe(self, asked: Asked) -> Recipe:
        if asked.label is not None:
            return baseline(self._record.genome, asked.label).recipe
        return self._record.genome.decode(asked.params)

    def _note_baseline(self, label: str | None, scores: Mapping[str, float] | None) -> None:
        """Keep a baseline's score in the first objective, which a greedy soup goes by."""
        first = self._record.objectives[0]
        if label is not None:
            self._baseline_scores[label] = first.oriented(scores[first.name]) if scores else None

    def _violations(self, scores: Mapping[str, float]) -> dict[str, float]:
        """Return by how much each constraint is missed; at most 0 where it is met."""
        asked = zip(self._record.constraints, self._record.space.constraints, strict=True)
        return {measure.name: each.missed_by(scores[measure.name]) for measure, each in asked}

    def _count_earlier_sittings(self) -> None:
        known = self._items.read("search")
        for trial in self._study.trials():
            if LABEL not in trial.user_attrs and trial.state != TrialState.WAITING:
                self._positions[trial.number] = len(self._positions)
            if trial.state.is_finished():
                self._count(trial, known)
        self._failed_before = self._tally.failed
        self._sampled_failed_before = self._tally.sampled_failed
        self._tally.begin()

    def _count(self, trial: FrozenTrial, known: Mapping[int, tuple[ItemScores, ...]]) -> None:
        """Count a trial of an earlier sitting."""
        label = trial.user_attrs.get(LABEL)
        if self._race.enters_start(self._positions.get(trial.number, self._budget)):
            self._race.leave_start()
        match trial.state:
            case TrialState.FAIL:
                self._note_baseline(label, None)
                self._tally.add_failed(trial.user_attrs.get("failure", ""), baseline=label is not None)
            case TrialState.PRUNED:
                self._tally.add_dropped(_asked_items(self._items_of(trial, known)))
            case TrialState.COMPLETE:
                scores = trial.user_attrs["scores"]
                self._note_baseline(label, scores)
                self._tally.add_scored(
                    trial.number, scores, baseline=label is not None, feasible=feasible(trial)
                )
                restored = _restored(trial, self._items_of(trial, known))
                self._race.learn(trial.number, restored, self._tally.archive)

    def _items_of(
        self, trial: FrozenTrial, known: Mapping[int, tuple[ItemScores, ...]]
    ) -> tuple[ItemScores, ...]:
        """Return a finished trial's item scores, which were written before the study had it as finished."""
        if trial.number not in known:
            raise RunError(
                f"the study has a score of trial {trial.number}, but {self._folder.items} has none of its "
                "items: it was deleted, damaged or replaced; put it back, or start a new run"
            )
        return known[trial.number]

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


def _asked_items(items: Sequence[ItemScores]) -> int:
    """Return how many items were asked, all tasks together."""
    return sum({each.task: len(each.items) for each in items}.values())


def _restored(trial: FrozenTrial, items: Sequence[ItemScores]) -> Scored:
    """Return what an earlier sitting scored."""
    attributes = trial.user_attrs
    return Scored(
        scores=attributes["scores"],
        items=tuple(items),
        merge_seconds=attributes["merge_seconds"],
        score_seconds=attributes["score_seconds"],
        device=attributes["device"],
    )
