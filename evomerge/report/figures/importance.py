"""Which genes tell good candidates from others, and how much of that chance alone would tell."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial, create_trial

from evomerge.archive.run import Run, is_heir
from evomerge.archive.trials import ESTIMATE, LABEL, SCORES
from evomerge.report.figures.drawing import Figure, Scale, across, drawing, line, rect, shortened, text
from evomerge.seeds import derive
from evomerge.types import Measure

_FEWEST = 50
"""Candidates: Optuna advises that the best tenth be five at least."""
_SHUFFLES = 20
_MOST = 20
"""Bars."""
_MOST_CANDIDATES = 1000


@dataclass(frozen=True, kw_only=True)
class Importance:
    """Each gene's share of importance in one objective, the largest first, over so many candidates.

    `chance` is what the largest share of genes without any effect comes to, in nineteen of twenty cases.
    """

    measure: Measure
    shares: Mapping[str, float]
    candidates: int
    chance: float


def sampled(run: Run) -> list[FrozenTrial]:
    """Return the candidates with a score or an estimate of their own that are no baselines."""
    return [
        trial
        for trial in run.frozen_trials
        if LABEL not in trial.user_attrs and not is_heir(trial) and told(trial) and trial.params
    ]


def told(trial: FrozenTrial) -> Mapping[str, float]:
    """Return a trial's scores, or their estimates."""
    found: Mapping[str, float] = trial.user_attrs.get(SCORES) or trial.user_attrs.get(ESTIMATE) or {}
    return found


def importances(run: Run) -> list[Importance]:
    """Return the importance of genes in each objective, of PED-ANOVA, where there are enough candidates.

    Watanabe et al. 2023, https://arxiv.org/abs/2304.10255: how far the best tenth of all candidates differs
    from the others, gene by gene. Of very many candidates every so-manieth counts.
    """
    every, genes = sampled(run), run.record.genome.genes
    if len(every) < _FEWEST or len(genes) < 2:
        return []
    trials = every[:: -(-len(every) // _MOST_CANDIDATES)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"(?s).*low `target` values")  # as they are given here
        study = _study(trials)
        found = [_importance(run, measure, trials, study) for measure in run.record.objectives]
    return [each for each in found if each is not None]


def _study(trials: Sequence[FrozenTrial]) -> optuna.Study:
    """Return a study of the trials' genes alone; their scores come in by number."""
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        study = optuna.create_study(direction="minimize")
    finally:
        optuna.logging.set_verbosity(verbosity)
    study.add_trials(
        [create_trial(params=each.params, distributions=each.distributions, value=0.0) for each in trials]
    )
    return study


def _importance(
    run: Run, measure: Measure, trials: Sequence[FrozenTrial], study: optuna.Study
) -> Importance | None:
    values = [measure.oriented(told(trial)[measure.name]) for trial in trials]
    if len(set(values)) < 2:
        return None
    shares = _shares(study, values)
    rng = np.random.default_rng(derive(run.record.space.seed, "report", measure.name))
    shuffled = sorted(
        max(_shares(study, rng.permutation(values).tolist()).values()) for _ in range(_SHUFFLES)
    )
    chance = shuffled[-2]
    ranked = dict(sorted(shares.items(), key=lambda each: (-each[1], each[0])))
    return Importance(measure=measure, shares=ranked, candidates=len(trials), chance=chance)


def _shares(study: optuna.Study, values: Sequence[float]) -> dict[str, float]:
    """Return each gene's share where trials score `values`, by number; lower is better to Optuna."""
    found = PedAnovaImportanceEvaluator().evaluate(study, target=lambda trial: -values[trial.number])
    whole = math.fsum(found.values()) or 1.0
    return {name: share / whole for name, share in found.items()}


def importance_figure(found: Importance) -> Figure:
    """Return the shares as bars, with what chance alone would give."""
    shown = list(found.shares.items())[:_MOST]
    width, left, top, row = 540.0, 170.0, 10.0, 22.0
    bottom = top + row * len(shown)
    most = max(*(share for _, share in shown), found.chance) * 1.08
    scale = Scale(low=0, high=most, start=left, stop=width - 40)
    parts = [across(scale, bottom, top, "share of importance", middle=(left + width - 40) / 2)]
    for k, (name, share) in enumerate(shown):
        y = top + k * row
        parts += [
            text(left - 8, y + row / 2 + 4, shortened(name, left - 14), at="end", kind="label"),
            rect(left, y + 4, max(scale(share) - left, 0.5), row - 8, "bar-fill", f"{name}: {share:.1%}"),
            text(scale(share) + 6, y + row / 2 + 4, f"{share:.0%}", size=11),
        ]
    parts.append(line(scale(found.chance), top, scale(found.chance), bottom, "dashed baseline"))
    above = sum(share > found.chance for share in found.shares.values())
    rest = (
        f" The first {len(shown)} of {len(found.shares)} genes are shown."
        if len(shown) < len(found.shares)
        else ""
    )
    return Figure(
        title=f"Which genes tell the best tenth apart, in {found.measure.name}",
        svg=drawing(width, bottom + 40, parts, f"Importance of genes for {found.measure.name}"),
        caption=f"Optuna's PED-ANOVA over {found.candidates} candidates, baselines left out, estimates of "
        "those given up early included. The dashed line is what the largest of these shares comes to by "
        f"chance (19 of 20 shufflings of the scores stay below): {_counted(above)} beyond it.{rest}",
        legend=(("baseline", "by chance"),),
    )


def _counted(above: int) -> str:
    return {0: "no gene is", 1: "one gene is"}.get(above, f"{above} genes are")
