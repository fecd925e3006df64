"""The study is the record: one Optuna trial per candidate, written before it runs and before it is used.

Optuna's journal file needs an absolute path (a relative one never releases a stale lock) and a whole last
line (a torn one spoils the next append); both are seen to here.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, Trial, TrialState

from evomerge.archive.database import open_database
from evomerge.archive.files import trim_torn_line
from evomerge.archive.journal import Journal
from evomerge.archive.optuna_private import live, remember
from evomerge.archive.trials import (
    ENDED_WORKERS,
    ESTIMATE,
    HOW,
    INHERITED,
    ITEMS,
    KEY,
    LABEL,
    PREFIX,
    SCORES,
    VARIANCES,
    WAITS,
    Asked,
    Dropped,
    Halved,
    Waiting,
)
from evomerge.errors import RunError
from evomerge.space.genes import GeneSpec
from evomerge.types import Failed, Measure, Params, Scored

_RUNG = "rung {}"
"""Of the study: who of the first few went on from a rung, and who was given up there, both in their order."""
_DIED = "evomerge:died"  # a system attribute: it tells of the controller, and not of the candidate
_LONGEST_REASON = 1900
"""Characters: what a dashboard shows without burying the rest. MySQL would hold 65,535 bytes."""


def distributions(genes: Sequence[GeneSpec]) -> dict[str, BaseDistribution]:
    """Return Optuna's distribution for each gene."""
    return {gene.name: _distribution(gene) for gene in genes}


def _distribution(gene: GeneSpec) -> BaseDistribution:
    if gene.choices is not None:
        return CategoricalDistribution(gene.choices)
    if gene.whole:
        return IntDistribution(int(gene.low), int(gene.high))
    return FloatDistribution(gene.low, gene.high, log=gene.log)


def open_storage(where: str | Path, *, existing: bool = False) -> BaseStorage:
    """Return the storage at a database URL, or the journal file at a path. Never creates a folder.

    Raises `RunError` if it cannot be opened, is damaged, or should be `existing` and is not.
    """
    if isinstance(where, str) and "://" in where:
        return open_database(where, existing=existing)
    if Path(where).exists() and not Path(where).is_file():
        raise RunError(f"the study {where} is no file; put a copy back, or start a new run")
    try:
        return Journal(Path(where).absolute())
    except OSError as error:
        raise RunError(f"the study {where} cannot be read: {error.strerror}") from error
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError, RecursionError) as error:
        raise RunError(
            f"the study {where} is damaged ({error}); put a copy back, or start a new run"
        ) from error


def study_exists(where: str | Path, name: str) -> bool:
    """Return whether the storage holds a study of this name."""
    try:
        open_storage(where).get_study_id_from_name(name)
    except KeyError:
        return False
    return True


class StudyRecord:
    """The trials of one run: asks, tells, and reads back."""

    def __init__(
        self,
        storage: BaseStorage,
        name: str,
        *,
        objectives: Sequence[Measure],
        genes: Sequence[GeneSpec],
        sampler: BaseSampler | None,
    ) -> None:
        optuna.logging.set_verbosity(logging.ERROR)
        directions = [
            StudyDirection.MAXIMIZE if each.higher_is_better else StudyDirection.MINIMIZE
            for each in objectives
        ]
        self.study = optuna.create_study(
            study_name=name,
            storage=storage,
            directions=directions,
            sampler=sampler,
            load_if_exists=True,
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            self.study.set_metric_names([each.name for each in objectives])
        self._storage = storage
        self._objectives = tuple(objectives)
        self._distributions = distributions(genes)
        self._live: dict[int, Trial] = {}

    def describe(self, attributes: Mapping[str, str]) -> None:
        """Attach readable attributes to the study, for whoever opens it in a dashboard."""
        for name, value in attributes.items():
            if self.study.user_attrs.get(name) != value:
                self.study.set_user_attr(name, value)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait once for the disk, at the end of the block, for all that is recorded in it.

        It holds where trials are kept in a journal; a database has its own ways. Blocks may be nested.
        """
        with self._storage.together() if isinstance(self._storage, Journal) else nullcontext():
            yield

    def enqueue(self, label: str, params: Params | None) -> None:
        """Put a baseline in front of the queue; with `params` where the genes can say it."""
        attributes = {LABEL: label, "genes": params is not None}
        self.study.enqueue_trial(dict(params or {}), user_attrs=attributes)

    def ask(self) -> Asked:
        """Return the next candidate, recorded as running."""
        with self.together():
            return self._asked(self.study.ask())

    def unfinished(self) -> list[Asked]:
        """Return the trials a crash left running, in order; they keep their numbers."""
        left = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        return [_with_deaths(self._asked(live(self.study, trial)), trial) for trial in left]

    def count_deaths(self, number: int, died: int, at: str | None) -> None:
        """Keep how many sittings will have died with a running trial at a job, should this one die, too."""
        remember(self.study, self._live[number], _DIED, {"sittings": died, "at": at})

    def note(self, number: int, **attributes: Any) -> None:
        """Attach readable attributes to a running trial."""
        with self.together():
            for name, value in attributes.items():
                self._live[number].set_user_attr(name, value)

    def note_waiting(self, number: int, waiting: Waiting) -> None:
        """Record that a trial waits for others."""
        so_far = waiting.so_far
        noted = {
            "look": waiting.look,
            "scores": dict(so_far.scores),
            "ranked_by": waiting.ranked_by,
            "alike": waiting.alike,
            "merge_seconds": so_far.merge_seconds,
            "score_seconds": so_far.score_seconds,
            "device": so_far.device,
        }
        self.note(number, **{WAITS: noted})

    def note_halved(self, halved: Halved) -> None:
        """Record what was decided at the next rung, all at once."""
        decided = {"kept": halved.kept, "dropped": halved.dropped}
        self.study.set_user_attr(_RUNG.format(len(self.halved())), decided)

    def halved(self) -> list[Halved]:
        """Return what was decided at each rung so far."""
        noted, found = self.study.user_attrs, list[Halved]()
        while (each := noted.get(_RUNG.format(len(found)))) is not None:
            found.append(Halved(kept=tuple(each["kept"]), dropped=tuple(each["dropped"])))
        return found

    def tell_scored(self, number: int, scored: Scored, constraints: Mapping[str, float]) -> None:
        """Finish a trial with its objectives; a constraint is met where its value is at most 0."""
        with self.together():
            trial = self._constrained(number, constraints, origin=None)
            _set_scores(trial, scored.scores, constraints)
            trial.set_user_attr("merge_seconds", round(scored.merge_seconds, 3))
            trial.set_user_attr("score_seconds", round(scored.score_seconds, 3))
            trial.set_user_attr("device", scored.device)
            self.study.tell(number, self._values(scored.scores))

    def tell_inherited(
        self,
        number: int,
        origin: int,
        scores: Mapping[str, float],
        constraints: Mapping[str, float],
        *,
        how: str,
        items: int,
    ) -> None:
        """Finish a trial with the scores of `origin`, which it is again; `items` of its own were scored."""
        with self.together():
            trial = self._constrained(number, constraints, origin=origin)
            trial.set_user_attr(HOW, how)
            trial.set_user_attr(ITEMS, items)
            _set_scores(trial, scores, constraints)
            self.study.tell(number, self._values(scores))

    def _constrained(self, number: int, constraints: Mapping[str, float], *, origin: int | None) -> Trial:
        """Return a trial about to be told, with its constraints, and what it is again if it is another."""
        trial = self._live.pop(number)
        if origin is not None or INHERITED in trial.user_attrs:  # left by a crash
            trial.set_user_attr(INHERITED, origin)
        for name, violation in constraints.items():
            trial.set_constraint(name, violation)
        return trial

    def _values(self, scores: Mapping[str, float]) -> list[float]:
        return [scores[objective.name] for objective in self._objectives]

    def tell_dropped(self, number: int, dropped: Dropped, constraints: Mapping[str, float]) -> None:
        """Finish a trial that was given up: pruned, with estimates that samplers see as its scores."""
        with self.together():
            trial = self._constrained(number, constraints, origin=dropped.origin)
            trial.set_user_attr("dropped", dropped.reason[:_LONGEST_REASON])
            trial.set_user_attr(ITEMS, dropped.items)
            trial.set_user_attr(ESTIMATE, dict(dropped.estimates))
            trial.set_user_attr(VARIANCES, dict(dropped.variances))
            trial.set_user_attr(PREFIX, dict(dropped.so_far.scores))
            trial.set_user_attr("values", self._values(dropped.estimates))
            trial.set_user_attr("merge_seconds", round(dropped.so_far.merge_seconds, 3))
            trial.set_user_attr("score_seconds", round(dropped.so_far.score_seconds, 3))
            trial.set_user_attr("device", dropped.so_far.device)
            self.study.tell(number, state=TrialState.PRUNED)

    def tell_failed(self, number: int, failed: Failed) -> None:
        """Finish a trial that could not be scored; samplers never see it."""
        with self.together():
            trial = self._live.pop(number)
            trial.set_user_attr("failure", failed.reason[:_LONGEST_REASON])
            if failed.ended_workers:
                trial.set_user_attr(ENDED_WORKERS, failed.ended_workers)
            self.study.tell(number, state=TrialState.FAIL)

    def trials(self, *states: TrialState) -> list[FrozenTrial]:
        """Return the trials in the given states (all if none given), by number."""
        return self.study.get_trials(deepcopy=False, states=states or None)

    def repeated_baselines(self) -> int:
        """Return how many trials are earlier tries of a baseline that was enqueued again."""
        labelled = sum(LABEL in trial.user_attrs for trial in self.trials())
        return labelled - len(self.labels())

    def labels(self, *states: TrialState) -> set[str]:
        """Return the baselines the study has in the given states (all if none given)."""
        return {trial.user_attrs[LABEL] for trial in self.trials(*states) if LABEL in trial.user_attrs}

    def _asked(self, trial: Trial) -> Asked:
        label = trial.user_attrs.get(LABEL)
        self._live[trial.number] = trial
        if label is None or trial.user_attrs["genes"]:
            for name, distribution in self._distributions.items():
                _suggest(trial, name, distribution)
        return Asked(number=trial.number, params=dict(trial.params), label=label)


def _with_deaths(asked: Asked, trial: FrozenTrial) -> Asked:
    """Return a trial that was left running with what it is known to have been at.

    The sitting that began it has only noted its recipe.
    """
    known = trial.system_attrs.get(_DIED, {"sittings": int(KEY in trial.user_attrs), "at": None})
    return replace(asked, died=known["sittings"], died_at=known["at"])


def _set_scores(trial: Trial, scores: Mapping[str, float], constraints: Mapping[str, float]) -> None:
    if constraints:
        trial.set_user_attr("feasible", all(v <= 0 for v in constraints.values()))
    trial.set_user_attr(SCORES, dict(scores))


def _suggest(trial: Trial, name: str, distribution: BaseDistribution) -> None:
    if isinstance(distribution, CategoricalDistribution):
        trial.suggest_categorical(name, distribution.choices)
    elif isinstance(distribution, FloatDistribution):
        trial.suggest_float(name, distribution.low, distribution.high, log=distribution.log)
    elif isinstance(distribution, IntDistribution):
        trial.suggest_int(name, distribution.low, distribution.high)


def repair_journal(path: Path) -> None:
    """Make a journal writable again after a crash in mid-line; only the holder of the folder's lock may.

    Optuna's own lock, if a dead process left it, would be waited for half a minute, and for ever once the
    folder has moved: it is a link to the journal's old place.
    """
    path.with_name(f"{path.name}.lock").unlink(missing_ok=True)
    trim_torn_line(path)
