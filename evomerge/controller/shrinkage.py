"""How far search scores flatter: what a candidate's score comes to once its noise is taken off."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.run import Run, is_heir
from evomerge.archive.trials import LABEL, VARIANCES
from evomerge.comparison.final import between_variance, expected_optimism, shrunken
from evomerge.comparison.items import compare_items
from evomerge.controller.closing_report import Optimism
from evomerge.controller.sheets import Sheet
from evomerge.types import ItemScores, Measure

_FEWEST = 3  # candidates that say anything of how candidates differ


@dataclass(frozen=True, kw_only=True)
class Spread:
    """How the candidates of a search differ in one measure, and how noisy their search scores are.

    `mean` is that of all candidates, of dropped ones as estimated; `between` the variance of their true
    scores, `within` that of a score's error: of its paired difference to the candidates' mean on each item,
    as what is hard for all of them makes none look better than another. It is the median over candidates,
    as those that forgot everything differ from that mean on nearly all items.
    """

    measure: Measure
    candidates: int
    items: int
    mean: float
    between: float
    within: float

    def shrunken(self, score: float) -> float:
        """Return the score a candidate is to be expected to have on further items."""
        return shrunken(score, mean=self.mean, between=self.between, within=self.within)

    def optimism(self) -> Optimism:
        """Return by how much the best score would flatter if all candidates were equally good."""
        error = math.sqrt(self.within)
        return Optimism(
            measure=self.measure.name,
            candidates=self.candidates,
            items=self.items,
            error=error,
            expected=expected_optimism(error, self.candidates),
        )


def spread(run: Run, measure: Measure, sheets: Mapping[int, Sheet]) -> Spread | None:
    """Return how the sampled candidates differ; None where too few have items, or there is no interval.

    `sheets` are the search sheets of the fully scored trials.
    """
    sampled = [trial for trial in run.frozen_trials if LABEL not in trial.user_attrs]
    asked = [sheets[trial.number].of(measure) for trial in sampled if trial.number in sheets]
    items = [each for each in asked if each is not None]
    errors = _errors(measure, items)
    if not errors:
        return None
    scores = [score for trial in sampled if (score := _score(trial, measure)) is not None]
    variances = [_estimated(trial, VARIANCES, measure) for trial in sampled]
    within = statistics.median([*errors, *(each for each in variances if each is not None)])
    return Spread(
        measure=measure,
        candidates=len(scores),
        items=len(items[0].items),
        mean=statistics.fmean(scores),
        between=between_variance(scores, within),
        within=within,
    )


def _errors(measure: Measure, items: Sequence[ItemScores]) -> list[float]:
    """Return the variance of each candidate's score as it differs from the mean over candidates.

    That mean holds the candidate itself: of n candidates, which takes away a share 1/n.
    """
    whole = [each for each in items if each.items == items[0].items]
    if len(whole) < _FEWEST:
        return []
    typical = replace(
        whole[0],
        scores=tuple(map(statistics.fmean, zip(*(each.scores for each in whole), strict=True))),
        margins=None,
    )
    found = (compare_items(measure, each, typical) for each in whole)
    share = 1 - 1 / len(whole)
    return [each.standard_error**2 / share for each in found if each is not None]


def _score(trial: FrozenTrial, measure: Measure) -> float | None:
    """Return a candidate's score, as estimated where it was dropped before all its items.

    One that is an earlier candidate again is none of its own.
    """
    if is_heir(trial):
        return None
    if trial.state == TrialState.COMPLETE:
        return float(trial.user_attrs["scores"][measure.name])
    return _estimated(trial, "estimate", measure)


def _estimated(trial: FrozenTrial, what: str, measure: Measure) -> float | None:
    if trial.state != TrialState.PRUNED or is_heir(trial):
        return None
    found = trial.user_attrs.get(what, {}).get(measure.name)
    return None if found is None else float(found)
