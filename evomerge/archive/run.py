"""A run, read: trials, items and front as DataFrames, and the recipe of any trial."""

from __future__ import annotations

from dataclasses import fields
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.coefficients import Coefficient, Step, coefficients, steps
from evomerge.archive.database import is_redacted, storage_url, told
from evomerge.archive.folder import RunFolder, resolved
from evomerge.archive.front import Member, ParetoArchive
from evomerge.archive.items import ItemStore
from evomerge.archive.record import RunRecord
from evomerge.archive.study import open_storage
from evomerge.archive.trials import ESTIMATE, INHERITED, ITEMS, KEY, LABEL
from evomerge.errors import RunError
from evomerge.reading import read_json_file
from evomerge.recipe import Recipe
from evomerge.space import Genome
from evomerge.space.baselines import baseline
from evomerge.types import ItemScores, Split

if TYPE_CHECKING:
    import pandas as pd

_STATES = {
    TrialState.COMPLETE: "scored",
    TrialState.FAIL: "failed",
    TrialState.RUNNING: "running",
    TrialState.WAITING: "waiting",
    TrialState.PRUNED: "dropped",
}

_TRY_AGAIN = "try again once it works"


def open_run(path: str | Path, *, storage: str | None = None) -> Run:
    """Return the run in a folder, finished or not; reading never disturbs a search that writes.

    Raises `RunError` if there is no run, or its database needs a `storage` URL with a password.
    """
    folder = RunFolder(resolved(Path(path)))
    return Run(folder, folder.read_record(), storage_url(storage) if storage is not None else None)


class Run:
    """What a run has found so far."""

    def __init__(self, folder: RunFolder, record: RunRecord, storage: str | None = None) -> None:
        self.folder = folder
        self.record = record
        self._storage = storage

    @cached_property
    def storage(self) -> str | Path:
        """Where the study lies: a journal's path, or a database URL."""
        where = self._storage or self.record.storage
        if where is None:
            return self.folder.journal
        if is_redacted(where):
            raise RunError(f"the run's storage {where} needs its password: give `--storage URL`")
        return where

    @cached_property
    def study_id(self) -> int:
        """The study's number in its storage."""
        if isinstance(self.storage, Path) and not self.storage.exists():
            raise RunError(f"{self.folder.path} has no study yet: {self.storage.name} is missing")
        try:
            with told(self.storage, RunError, _TRY_AGAIN):
                return self.opened.get_study_id_from_name(self.record.study)
        except KeyError as error:
            where = self.storage if isinstance(self.storage, Path) else "the database"
            raise RunError(
                f"{where} holds no study named `{self.record.study}`: it was deleted or replaced"
            ) from error

    @cached_property
    def frozen_trials(self) -> list[FrozenTrial]:
        """Optuna's own trials, by number, as they stood when first read."""
        number = self.study_id
        with told(self.storage, RunError, _TRY_AGAIN):
            return self.opened.get_all_trials(number, deepcopy=False)

    @cached_property
    def opened(self) -> BaseStorage:
        """The study's storage, which reads on as a search writes."""
        return open_storage(self.storage, existing=True)

    def trials(self) -> pd.DataFrame:
        """Return one row per trial: number, state, baseline, scores, feasibility, times, device, genes.

        `items` counts the search items it was itself scored on. A trial `inherited_from` an earlier one is
        that one again and has its scores; one that was `dropped`, for the reason given, has estimates of its
        scores instead.
        A gene on which nothing depends in a trial (the density of another method, the scale of a layer that
        is not passed) is missing there.
        """
        import pandas as pd

        return pd.DataFrame.from_records([self._row(trial) for trial in self.frozen_trials])

    def items(self) -> pd.DataFrame:
        """Return one row per trial, split, task, metric, filter and item (its content hash)."""
        return ItemStore(self.folder.items, self.record.items).frame()

    def item_scores(self, split: Split) -> dict[int, tuple[ItemScores, ...]]:
        """Return the item scores of each trial on a split, as an evaluator gave them."""
        return ItemStore(self.folder.items, self.record.items).read(split)

    def items_of(self, number: int, split: Split) -> tuple[ItemScores, ...]:
        """Return the item scores of one trial on a split; those of others are passed over."""
        return self._items.of(number, split)

    @cached_property
    def _items(self) -> ItemStore:
        return ItemStore(self.folder.items, self.record.items)

    def front(self) -> pd.DataFrame:
        """Return the rows of `trials()` on the Pareto front, best in the first objective first."""
        frame = self.trials()
        members = [member.trial for member in self.archive.front]
        first = self.record.objectives[0]
        return (
            frame[frame["trial"].isin(members)]
            .sort_values([first.name, "trial"], ascending=[not first.higher_is_better, True])
            .reset_index(drop=True)
        )

    def coefficients(self, *trials: int) -> pd.DataFrame:
        """Return one row per trial, merge, parameter, source, layer and module group: what was built.

        Of the given trials, or of all that were scored themselves. `layer` is missing for `embed` and `head`,
        `source` where a parameter has one value for all; what is left to a method's defaults is no row.
        """
        import pandas as pd

        rows = [
            {"trial": number, **vars(each)}
            for number in trials or self._scored
            for each in coefficients(self.recipe(number), self.record.layers)
        ]
        names = ["trial", *(each.name for each in fields(Coefficient))]
        return pd.DataFrame(rows, columns=names).astype({"layer": "Int64"})

    def paths(self, *trials: int) -> pd.DataFrame:
        """Return one row per trial and layer of its stack, bottom to top: slot, model, layer, scale.

        Of the given trials, or of all that were scored themselves; without paths it is empty.
        """
        import pandas as pd

        numbers = trials or self._scored
        rows = [{"trial": number, **vars(each)} for number in numbers for each in steps(self.recipe(number))]
        return pd.DataFrame(rows, columns=["trial", *(each.name for each in fields(Step))])

    @property
    def _scored(self) -> tuple[int, ...]:
        return tuple(trial.number for trial in self.frozen_trials if is_scored(trial))

    def report(self) -> dict[str, Any] | None:
        """Return the closing report, or None if the search has never ended.

        Where its `finished` is not the run's, the search has gone on since.
        """
        if not self.folder.report.exists():
            return None
        try:
            content = read_json_file(self.folder.report)
            if not isinstance(content["finished"], int) or not isinstance(content["chosen"], dict):
                raise ValueError("it is no closing report")
        except (OSError, ValueError, LookupError, TypeError) as error:
            raise RunError(
                f"{self.folder.report} is damaged: delete it, and `--resume` writes it anew"
            ) from error
        return dict(content)

    @cached_property
    def archive(self) -> ParetoArchive:
        """The front over all feasible trials that were scored themselves."""
        found = ParetoArchive()
        for trial in self.frozen_trials:
            if is_scored(trial) and feasible(trial):
                found = found.add(self.member(trial))
        return found

    def asked(self, trial: FrozenTrial) -> int:
        """Return on how many search items, all tasks together, a trial was scored itself."""
        if trial.state == TrialState.PRUNED:
            return 0 if is_heir(trial) else self.record.asked(trial.user_attrs.get(ITEMS, 0))
        if trial.state != TrialState.COMPLETE:
            return 0
        return self.record.asked(trial.user_attrs[ITEMS] if is_heir(trial) else self.record.looks[-1])

    @cached_property
    def _genome(self) -> Genome:
        return self.record.genome

    def member(self, trial: FrozenTrial) -> Member:
        """Return a scored trial as a candidate for the front."""
        pairs = zip(self.record.objectives, trial.values, strict=True)
        return Member(trial=trial.number, scores=tuple(measure.oriented(value) for measure, value in pairs))

    def scores(self, number: int) -> dict[str, float]:
        """Return a scored trial's measures by name. Raises `RunError` if it has none."""
        trial = self._trial(number)
        if trial.state != TrialState.COMPLETE:
            what = "it failed" if trial.state == TrialState.FAIL else f"it is {_STATES[trial.state]}"
            raise RunError(f"trial {number} has no score: {what}")
        return dict(trial.user_attrs["scores"])

    def label(self, number: int) -> str | None:
        """Return which baseline a trial is, if it is one."""
        found = self._trial(number).user_attrs.get(LABEL)
        return str(found) if found else None

    def recipe(self, number: int) -> Recipe:
        """Return exactly what trial `number` built. Raises `RunError` if it cannot be rebuilt."""
        return self.recipe_of(self._trial(number))

    def recipe_of(self, trial: FrozenTrial) -> Recipe:
        """Return exactly what a trial built, also one that was asked for since the trials were read."""
        number, genome = trial.number, self._genome
        label = trial.user_attrs.get(LABEL)
        if label is None and not self._is_asked(trial):
            raise RunError(f"trial {number} has no recipe yet: it is {_STATES[trial.state]}")
        recipe = baseline(genome, label).recipe if label else genome.decode(trial.params)
        if trial.user_attrs.get(KEY) not in (None, recipe.key):
            raise RunError(
                f"trial {number} was decoded by another version of evomerge "
                f"({self.record.provenance['versions']['evomerge']}); export it with that one"
            )
        return recipe

    def best(self, objective: str | None = None) -> int:
        """Return the trial chosen for one objective (the first by default) at the end of the search.

        Before that, and once the search has gone on, it is the feasible one with the best search score.
        """
        names = [measure.name for measure in self.record.objectives]
        if objective is not None and objective not in names:
            raise RunError(f"no objective named `{objective}`; the run has {', '.join(names)}")
        index = names.index(objective) if objective else 0
        if not self.archive.front:
            raise RunError(
                f"{self.folder.path} has no scored trial that meets every constraint; name one by its number"
            )
        report = self._last_word
        if report is not None and names[index] in report["chosen"]:
            return int(report["chosen"][names[index]])
        return max(self.archive.front, key=lambda m: (m.scores[index], -m.trial)).trial

    def knee(self) -> int:
        """Return the most balanced trial: of the finalists once one was chosen, else of the front."""
        best = self.best()  # says so if there is no front
        report = self._last_word
        if report is None or not report["chosen"]:
            return self.archive.knee().trial
        return best if report["knee"] is None else int(report["knee"])

    @property
    def finished(self) -> int:
        """How many trials are over, however they ended."""
        return sum(trial.state.is_finished() for trial in self.frozen_trials)

    @property
    def _last_word(self) -> dict[str, Any] | None:
        """The closing report, unless the search has gone on since."""
        report = self.report()
        return report if report is not None and report["finished"] == self.finished else None

    def _trial(self, number: int) -> FrozenTrial:
        if not 0 <= number < len(self.frozen_trials):
            raise RunError(f"no trial {number}: the run has {len(self.frozen_trials)} trials")
        return self.frozen_trials[number]

    def _is_asked(self, trial: FrozenTrial) -> bool:
        """Return whether a trial has all its genes: a search that writes records them one by one."""
        return all(gene.name in trial.params for gene in self._genome.genes)

    def _row(self, trial: FrozenTrial) -> dict[str, Any]:
        scores, estimates = (trial.user_attrs.get(each, {}) for each in ("scores", ESTIMATE))
        idle = self._genome.idle(trial.params) if self._is_asked(trial) else frozenset()
        seconds = [trial.user_attrs.get(f"{part}_seconds") for part in ("merge", "score")]
        return {
            "trial": trial.number,
            "state": _STATES[trial.state],
            "baseline": trial.user_attrs.get(LABEL),
            **{measure.name: scores.get(measure.name) for measure in self.record.measures},
            "items": self.asked(trial),
            INHERITED: trial.user_attrs.get(INHERITED),
            "dropped": trial.user_attrs.get("dropped"),
            **{f"estimate_{m.name}": estimates.get(m.name) for m in self.record.measures},
            "feasible": trial.user_attrs.get("feasible", True),
            "merge_seconds": seconds[0],
            "score_seconds": seconds[1],
            "device": trial.user_attrs.get("device"),
            "failure": trial.user_attrs.get("failure"),
            "recipe": trial.user_attrs.get(KEY),
            **{name: None if name in idle else value for name, value in trial.params.items()},
        }


def is_scored(trial: FrozenTrial) -> bool:
    """Return whether a trial was scored itself on all search items."""
    return trial.state == TrialState.COMPLETE and not is_heir(trial)


def is_heir(trial: FrozenTrial) -> bool:
    """Return whether a trial is an earlier one again, and has what it has from there."""
    return trial.user_attrs.get(INHERITED) is not None


def feasible(trial: FrozenTrial) -> bool:
    """Return whether a scored trial meets every constraint."""
    return all(violation <= 0 for violation in trial.constraints.values())
