"""A run being written: who is looked at next, and what becomes of whom."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import replace

from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.folder import RunFolder
from evomerge.archive.record import RunRecord
from evomerge.archive.run import is_scored
from evomerge.archive.study import StudyRecord
from evomerge.archive.trials import AUDITED, CANONICAL, HOW, KEY, LABEL, TWIN, Asked, Halved
from evomerge.controller.candidate import Candidate, twin_of
from evomerge.controller.equivalents import Alike
from evomerge.controller.heirs import Bequest, Heirs, recipe_key
from evomerge.controller.ledger import Ledger, restored
from evomerge.controller.left import Left, by_end, left_behind
from evomerge.controller.quarantine import Quarantine
from evomerge.controller.race import Judgement, Race, Verdict
from evomerge.controller.tally import Snapshot
from evomerge.dispatch.job import Job
from evomerge.evaluate.looks import extended
from evomerge.recipe import Recipe
from evomerge.space.baselines import baseline, baselines, greedy_soup
from evomerge.types import Failed, Identified, ItemScores, Outcome, Scored, Split

_MAY_BE_SCORED = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE)


class LiveRun:
    """Hands out candidates look by look and takes results; each is recorded before it is used.

    Trials that a crash left running are handed out again under their numbers, so nothing counts twice. What
    becomes of them hangs on what is recorded alone, so it is the same whenever the controller is lost.
    """

    def __init__(self, folder: RunFolder, record: RunRecord, study: StudyRecord, *, budget: int) -> None:
        self._record, self._study, self._budget = record, study, budget
        self._labels = tuple(each.label for each in baselines(record.genome))
        self._baseline_scores: dict[str, float | None] = {}
        self._ledger = Ledger(folder, record, study)
        self._tally = self._ledger.tally
        self._race = Race(record)
        self._heirs = Heirs(folder, record, self._ledger.items)
        self._quarantine = Quarantine(study)
        self._under_way: dict[int, Candidate] = {}
        self._next: deque[Job] = deque()  # further jobs of candidates under way
        self._positions: dict[int, int] = {}
        known = self._count_earlier_sittings()
        self._ledger.write_front()  # a crash may have come before
        identities = self._heirs.restore(by_end(study.trials(), known))
        self._tally.begin()
        # where nothing could be scored, what kept the baselines from it may have been put right
        asked = study.labels() if self._tally.scored else study.labels(*_MAY_BE_SCORED)
        for label in self._labels:
            if label not in asked:
                study.enqueue(label, baseline(record.genome, label).params)
        self._budget += study.repeated_baselines()
        left = left_behind(study, self._race, self._heirs, self._built, known, identities)
        self._quarantine.know([*left.anew, *(way.asked for way in left.candidates)])
        self._left = self._take_up(left)

    def next_job(self, *, begin: bool = True) -> Job | None:
        """Return the next job of a candidate under way, or of a new one, recorded as running.

        None if there is nothing to ask for now, or only what shall not `begin` any more. Those that wait for
        one another wait no longer once nobody else will come.
        """
        while not self._next:
            if not (begin and self._may_begin):
                if self._all_wait:
                    self._release(all_are_in=True)
                break
            with self._study.together():
                self._begin(self._left.pop(0) if self._left else self._ask())
            self._release()
        if not self._next or not self._quarantine.may_go(self._next[0]):
            return None
        job = self._next.popleft()
        self._quarantine.goes(job)
        return job

    @property
    def _may_begin(self) -> bool:
        """Whether there are candidates left to ask for."""
        spent = self._tally.finished + len(self._under_way) >= self._budget
        return bool(self._left) or not (spent or self.hopeless)

    @property
    def _all_wait(self) -> bool:
        """Whether the candidates under way all wait for one another."""
        twins = sum(way.twin is not None for way in self._under_way.values())
        return len(self._race.waiting) + twins == len(self._under_way)

    def has_begun(self, trial: int) -> bool:
        """Return whether an evaluator has given any result on a trial under way."""
        return self._under_way[trial].begun

    def put_off(self, trial: int) -> None:
        """Leave a trial that no evaluator has begun, recorded as running, to a resumed search."""
        self._quarantine.comes_back(trial)
        self._quarantine.acquit(self._under_way.pop(trial).asked)

    def leave(self) -> None:
        """Leave what is under way to a resumed search, as the sitting ends and has not died of it."""
        for way in self._under_way.values():
            self._quarantine.acquit(way.asked)

    @property
    def hopeless(self) -> bool:
        """Whether the models, or merges of them, cannot be scored here at all."""
        return self._tally.hopeless(baselines=len(self._labels))

    def snapshot(self) -> Snapshot:
        """Return how far the search is."""
        return self._tally.snapshot(budget=self._budget, running=len(self._under_way))

    def record_final(self, number: int, split: Split, scored: Scored) -> None:
        """Record what a trial scored on select or report items."""
        self._ledger.items.add(number, split, scored)

    def take(self, job: Job, outcome: Outcome) -> None:
        """Take in what came back of a job: the next look, or the end of its candidate."""
        number = job.trial
        self._quarantine.comes_back(number)
        match outcome:
            case Failed():
                self._fail(number, outcome)
            case Identified():
                self._identified(number, outcome)
            case Scored():
                self._look(number, job, outcome)
        self._release()

    def _ask(self) -> Asked:
        """Return a new candidate; the next average of a greedy soup comes first, once it is known."""
        genome = self._record.genome
        step = greedy_soup(genome, self._baseline_scores)
        if step is not None and step.soup is None and step.label not in self._study.labels():
            self._study.enqueue(step.label, baseline(genome, step.label).params)
        return self._study.ask()

    def _begin(self, asked: Asked) -> None:
        """Take up a candidate: what it is to be asked first, or its end if it is an earlier one again."""
        recipe, key = self._built(asked)
        methods = ", ".join(recipe.methods) or "path"
        self._study.note(asked.number, **{KEY: recipe.key, CANONICAL: key, "method": methods})
        first = False
        if asked.label is None:
            position = self._positions.setdefault(asked.number, len(self._positions))
            first = self._race.enters_start(position)
        self._under_way[asked.number] = Candidate(asked=asked, recipe=recipe, key=key, first=first)
        self._go_on(asked.number)

    def _go_on(self, number: int) -> None:
        """Put the next job of a candidate first in line, unless it ends or waits as another's equal."""
        way = self._under_way[number]
        key = None if way.begun else way.key
        if (refused := self._quarantine.refusal(way.asked, key)) is not None:
            self._fail(number, refused)
            return
        if self._record.inherits and way.look < 0:
            if way.sampled and self._goes_by_equal(number):
                return
            if way.identified is None:
                job = Job(trial=number, recipe=way.recipe, identify=True, screen=way.sampled)
                self._next.appendleft(job)
                return
        raced = way.sampled and len(self._race.ends) > 1
        self._next.appendleft(Job(trial=number, recipe=way.recipe, look=way.look + 1 if raced else None))

    def _built(self, asked: Asked) -> tuple[Recipe, str]:
        """Return what a trial builds, and the key of those that build the same."""
        genome = self._record.genome
        recipe = genome.decode(asked.params) if asked.label is None else baseline(genome, asked.label).recipe
        return recipe, recipe_key(self._record, recipe) if self._record.inherits else recipe.key

    def _goes_by_equal(self, number: int) -> bool:
        """Let a candidate that is another one again go by that one; return whether it is."""
        way = self._under_way[number]
        bequest = self._heirs.bequest(way.key, way.identified)
        if bequest is not None and not isinstance(bequest.hit, Alike):
            self._inherit(number, bequest)
            return True
        if (end := self._heirs.end(way.key, way.identified)) is not None:
            self._pop(number)
            self._heirs.learn_dropped_again(way.key, end)
            self._ledger.dropped_again(number, end)
            return True
        if (twin := twin_of(way, self._under_way)) is not None:
            self._leave_start(number)
            self._under_way[number] = replace(self._under_way[number], twin=twin)
            self._study.note(number, **{TWIN: twin})
            return True
        self._under_way[number] = replace(way, bequest=bequest)
        return False

    def _inherit(self, number: int, bequest: Bequest) -> None:
        """Finish a candidate with what it inherits, or have it scored all the same, to be compared."""
        self._leave_start(number)
        if self._heirs.audited(number):
            way = self._under_way[number] = replace(self._under_way[number], bequest=bequest)
            self._study.note(number, **{AUDITED: bequest.hit.trial, HOW: bequest.how})
            self._next.appendleft(Job(trial=number, recipe=way.recipe))
            return
        way = self._pop(number)
        self._heirs.learn_heir(way.key, bequest)
        self._ledger.inherited(number, bequest, way.so_far)
        self._let_twins_go_on(number)

    def _leave_start(self, number: int) -> None:
        """Take a candidate out of the race of the first few, if it is one of them."""
        if self._under_way[number].first:
            self._race.leave_start()
            self._under_way[number] = replace(self._under_way[number], first=False)

    def _let_twins_go_on(self, number: int) -> None:
        """Let those that waited for the end of a candidate go by it."""
        for other in [other for other, way in self._under_way.items() if way.twin == number]:
            self._under_way[other] = replace(self._under_way[other], twin=None)
            self._go_on(other)

    def _identified(self, number: int, identified: Identified) -> None:
        way = self._under_way[number] = replace(self._under_way[number], identified=identified)
        self._heirs.identify(number, way.key, identified)
        self._go_on(number)

    def _look(self, number: int, job: Job, part: Scored) -> None:
        """Put a look's scores to those before, and go by what the race says."""
        way = self._under_way[number]
        if job.look is None:
            self._finish(number, way.first_scores(part))
            return
        if way.so_far is None:
            so_far = way.first_scores(part)
        else:
            so_far = extended(way.so_far, part, self._record.measures)
        self._under_way[number] = replace(way, so_far=so_far, look=job.look)
        if job.look < len(self._race.ends) - 1 and self._turns_out_alike(number):
            return
        self._settle({number: self._race.judge(number, so_far, job.look, first=way.first)})

    def _turns_out_alike(self, number: int) -> bool:
        """Let a candidate inherit from one much like it if their answers agree; return whether it does."""
        way = self._under_way[number]
        if way.bequest is None or not isinstance(way.bequest.hit, Alike) or way.so_far is None:
            return False
        agree = self._heirs.agree(way.bequest.hit, way.so_far)
        if agree:
            self._inherit(number, way.bequest)
        elif agree is not None:
            self._under_way[number] = replace(way, bequest=None)
        return bool(agree)

    def _release(self, *, all_are_in: bool = False) -> None:
        """Settle who of those that wait goes on, if it is time; that is recorded before any of it is done."""
        if judgements := self._race.release(all_are_in=all_are_in):
            verdicts = {number: judgement.verdict for number, judgement in judgements.items()}
            kept = tuple(number for number, verdict in verdicts.items() if verdict is Verdict.GO_ON)
            dropped = tuple(number for number, verdict in verdicts.items() if verdict is Verdict.DROP)
            self._study.note_halved(Halved(kept=kept, dropped=dropped))
            self._settle(judgements)

    def _settle(self, judgements: Mapping[int, Judgement]) -> None:
        """Go by what the race says; who goes on is next, while its model is still there."""
        going_on = []
        for number, judgement in judgements.items():
            way = self._under_way[number]
            assert way.so_far is not None  # only what was looked at is judged
            match judgement.verdict:
                case Verdict.GO_ON:
                    going_on.append(number)
                case Verdict.DONE:
                    self._under_way[number] = replace(way, bequest=None)
                    self._finish(number, way.so_far)
                case Verdict.DROP:
                    self._drop(number, way.so_far, judgement.reason)
                case Verdict.WAIT:
                    self._quarantine.waits(number)
                    self._ledger.waits(number, way.waiting(judgement.ranked_by))
        for number in reversed(going_on):
            self._go_on(number)

    def _fail(self, number: int, failed: Failed) -> None:
        way = self._pop(number)
        self._note_baseline(way.asked.label, None)
        self._ledger.failed(number, failed, baseline=not way.sampled)
        self._quarantine.learn(number, way.key, failed)
        self._let_twins_go_on(number)

    def _finish(self, number: int, scored: Scored) -> None:
        way = self._under_way.pop(number)
        self._note_baseline(way.asked.label, scored.scores)
        if way.bequest is not None:
            self._heirs.audit(number, way.bequest, scored.scores)
        self._ledger.scored(number, scored, baseline=not way.sampled)
        self._race.learn(number, scored, self._tally.archive)
        self._heirs.learn(number, way.key, way.identified, scored.scores)
        self._let_twins_go_on(number)

    def _drop(self, number: int, so_far: Scored, reason: str) -> None:
        way = self._under_way.pop(number)
        dropped = self._ledger.dropped(number, so_far, self._race.estimate(so_far), reason)
        self._heirs.learn_dropped(number, way.key, way.identified, dropped)
        self._let_twins_go_on(number)

    def _pop(self, number: int) -> Candidate:
        """Return a candidate that ends without the race having said so."""
        self._leave_start(number)
        return self._under_way.pop(number)

    def _note_baseline(self, label: str | None, scores: Mapping[str, float] | None) -> None:
        """Keep a baseline's score in the first objective, which a greedy soup goes by."""
        first = self._record.objectives[0]
        if label is not None:
            self._baseline_scores[label] = first.oriented(scores[first.name]) if scores else None

    def _count_earlier_sittings(self) -> dict[int, tuple[ItemScores, ...]]:
        """Count what earlier sittings finished, in the order in which it ended; return the item scores."""
        known = self._ledger.items.read("search")
        trials = self._study.trials()
        ended = {trial.number for trial in trials if trial.state.is_finished()}
        self._race.resume_start(self._study.halved(), ended)
        for trial in trials:
            if LABEL not in trial.user_attrs and trial.state != TrialState.WAITING:
                self._positions[trial.number] = len(self._positions)
        for trial in by_end(trials, known):
            if trial.state.is_finished():
                self._count(trial, known)
        self._quarantine.restore(trials)
        return known

    def _count(self, trial: FrozenTrial, known: Mapping[int, tuple[ItemScores, ...]]) -> None:
        """Count a trial of an earlier sitting."""
        if self._race.enters_start(self._positions.get(trial.number, self._budget)):
            self._race.leave_start()
        self._ledger.count(trial, known)
        self._note_baseline(trial.user_attrs.get(LABEL), trial.user_attrs.get("scores"))
        if is_scored(trial):
            self._race.learn(trial.number, restored(trial, known[trial.number]), self._tally.archive)

    def _take_up(self, left: Left) -> list[Asked]:
        """Go on where an earlier sitting was cut off; return the candidates that begin anew."""
        for way in left.candidates:
            self._under_way[way.number] = way
            if way.twin is not None and self._race.enters_start(self._positions[way.number]):
                self._race.leave_start()
        for number, waiting in left.waiting.items():
            self._race.arrive(number, waiting.so_far, waiting.ranked_by)
        for number in left.going_on:
            self._under_way[number] = replace(self._under_way[number], twin=None)
            self._go_on(number)
        jobs, self._next = self._next, deque()
        self._settle(left.decided)
        self._next.extendleft(reversed(jobs))
        self._release()
        return list(left.anew)
