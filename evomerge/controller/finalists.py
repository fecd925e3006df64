"""Who comes into the last round of a search, and who of them is chosen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.front import Member, ParetoArchive
from evomerge.archive.run import Run, feasible, is_scored
from evomerge.archive.trials import KEY, LABEL
from evomerge.comparison.final import one_standard_error
from evomerge.comparison.items import compare_items
from evomerge.comparison.paired import Difference
from evomerge.controller.sheets import Sheet
from evomerge.space.baselines import BASE, baselines, greedy_soup, parent
from evomerge.types import Measure

_MOST, _MOST_OF_FRONT = 5, 10


@dataclass(frozen=True, kw_only=True)
class Baselines:
    """The baselines to report: labels by trial, and which of them are models that candidates are made of."""

    labels: Mapping[int, str]
    parents: tuple[int, ...]


def reported_baselines(run: Run) -> Baselines:
    """Return the baselines to report: of a greedy soup its last average, told from the tried ones."""
    usual = {each.label for each in baselines(run.record.genome)}
    parents = {BASE, *(parent(name) for name in run.record.space.parents)}
    soup = _greedy_soup(run)
    shown, originals = {}, []
    for trial in run.frozen_trials:
        label = trial.user_attrs.get(LABEL)
        if label is None or trial.state != TrialState.COMPLETE:
            continue
        if label in parents:
            originals.append(trial.number)
        if label == soup:
            shown[trial.number] = f"{label} (greedy soup)" if label in usual else f"greedy {label}"
        elif label in usual:
            shown[trial.number] = label
    return Baselines(labels=shown, parents=tuple(originals))


def _greedy_soup(run: Run) -> str | None:
    """Return the label of the average that a greedy soup came to, if one was asked for and got there."""
    first = run.record.objectives[0]
    scores = {
        str(trial.user_attrs[LABEL]): first.oriented(trial.user_attrs["scores"][first.name])
        if trial.state == TrialState.COMPLETE
        else None
        for trial in run.frozen_trials
        if LABEL in trial.user_attrs
    }
    step = greedy_soup(run.record.genome, scores)
    return step.label if step is not None and step.soup is not None else None


def finalists(run: Run) -> tuple[int, ...]:
    """Return the fully scored, feasible trials worth a second look, of equal recipes the first.

    Of one objective the best five by search score; of several the front, thinned to ten.
    """
    members = [run.member(trial) for trial in _different(run)]
    if len(run.record.objectives) == 1:
        best = sorted(members, key=lambda member: (-member.scores[0], member.trial))
        return tuple(member.trial for member in best[:_MOST])
    front = ParetoArchive()
    for member in members:
        front = front.add(member)
    return tuple(member.trial for member in thinned(front, _MOST_OF_FRONT).front)


def _different(run: Run) -> Iterator[FrozenTrial]:
    seen = set()
    for trial in run.frozen_trials:
        if is_scored(trial) and feasible(trial) and trial.user_attrs.get(KEY) not in seen:
            seen.add(trial.user_attrs.get(KEY))
            yield trial


def thinned(front: ParetoArchive, most: int) -> ParetoArchive:
    """Return at most `most` members: the best of each objective, then those that add the most hypervolume.

    They are added one by one to what they make the most of together, so of two close ones only one comes in.
    """
    if len(front.front) <= most:
        return front
    columns = list(zip(*(member.scores for member in front.front), strict=True))
    ends = [max(front.front, key=lambda m: (m.scores[i], -m.trial)) for i in range(len(columns))]
    kept = list(dict.fromkeys(ends))
    span = [max(column) - min(column) or 1.0 for column in columns]
    corner = [min(column) - 0.1 * width for column, width in zip(columns, span, strict=True)]
    while len(kept) < most:
        others = [member for member in front.front if member not in kept]
        kept.append(max(others, key=lambda m: (ParetoArchive((*kept, m)).hypervolume(corner), -m.trial)))
    return ParetoArchive(tuple(member for member in front.front if member in kept))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The trial chosen for each objective, and the most balanced one where there are several."""

    best: Mapping[str, int]
    knee: int | None

    @property
    def trials(self) -> tuple[int, ...]:
        """The chosen trials, each once."""
        balanced = () if self.knee is None else (self.knee,)
        return tuple(dict.fromkeys([*self.best.values(), *balanced]))


def choose(run: Run, among: Sequence[int], sheets: Mapping[int, Sheet]) -> Choice:
    """Return the choice among trials by the items on their `sheets`; trials without one are passed over."""
    there = [number for number in among if number in sheets]
    if not there:
        return Choice(best={}, knee=None)
    objectives = run.record.objectives
    best = {measure.name: _best(run, measure, there, sheets) for measure in objectives}
    if len(objectives) == 1:
        return Choice(best=best, knee=None)
    front = ParetoArchive()
    for number in there:
        scores = tuple(measure.oriented(sheets[number].scores[measure.name]) for measure in objectives)
        front = front.add(Member(trial=number, scores=scores))
    return Choice(best=best, knee=front.knee().trial)


def _best(run: Run, measure: Measure, among: Sequence[int], sheets: Mapping[int, Sheet]) -> int:
    """Return the trial with the fewest layers within one standard error of the best in a measure."""
    clusters = run.record.clusters.get(measure.task)

    def compared(best: int, other: int) -> Difference | None:
        ours, theirs = (sheets[among[k]].of(measure) for k in (best, other))
        return compare_items(measure, ours, theirs, clusters=clusters) if ours and theirs else None

    index = one_standard_error(
        scores=[measure.oriented(sheets[number].scores[measure.name]) for number in among],
        costs=[_layers(run, number) for number in among],
        compared=compared,
    )
    return among[index]


def _layers(run: Run, number: int) -> int:
    path = run.recipe(number).path
    return run.record.layers if path is None else len(path)
