"""CMA-ES, asynchronous: free workers never wait for a generation.

Hansen 2016, https://arxiv.org/abs/1604.00772, by pycma. Results are told in the order of completion,
once enough for a generation are there; those older than one generation are dropped. The population is at
least the number of workers: a search resumed with more of them goes on from its best point with a larger
one. pycma draws from numpy's global stream unless given one of its own.

Scores are noisy, most of all those of candidates that were given up after a few items, and a generation's
differ by little. So it is ranked by a Gaussian process over all that was told nearby, in units of the
strategy's own distribution. Bajer et al. 2019, https://doi.org/10.1162/evco_a_00244, replace evaluations by
such a process; here it only takes their noise out.

Nothing is pickled. Each trial records what was drawn for it, and after how many tells; a resumed search
replays them into a fresh strategy, which then stands where the old one stood.
"""

from __future__ import annotations

import math
import warnings
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from evomerge.archive.optuna_private import remember
from evomerge.archive.study import distributions
from evomerge.archive.trials import VARIANCES
from evomerge.comparison.smoothing import smoothed
from evomerge.controller.sampling import SamplerContext
from evomerge.controller.unit_cube import UnitCube
from evomerge.seeds import derive
from evomerge.types import Value

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="Could not import matplotlib")
    import cma

Vector: TypeAlias = NDArray[np.float64]

_DRAWN = "cma:drawn"
_TOLD = "cma:told"
_STALE = 1
_DIAGONAL_ABOVE = 500
_NEAR = 4.0  # standard deviations of a step
_NEIGHBOURS = 150
_REMEMBERED = 1000  # where a strategy was a hundred generations ago is far from where it is
_CLIP = 3.0
_DEGENERATE = ("tolx", "tolfacupx", "tolupsigma", "conditioncov", "noeffectaxis", "noeffectcoord")
"""Stops that mean the strategy cannot move; flat fitness is normal with accuracies and is no stop."""


@dataclass(frozen=True, kw_only=True)
class _Result:
    """What was told of a point: a loss and how uncertain it is."""

    x: Vector
    loss: float
    variance: float
    violation: float


class CmaSampler(BaseSampler):
    """pycma's CMA-ES over the unit cube of the genes; maximises the one objective."""

    def __init__(self, context: SamplerContext) -> None:
        if len(context.objectives) != 1:
            raise ValueError(
                f"it searches for one objective, found {len(context.objectives)}; use `nsgaii` or `tpe`"
            )
        options = dict(context.options)
        self._cube = UnitCube(context.genes)
        self._space = distributions(context.genes)
        self._objective = context.objectives[0]
        self._seed = context.seed
        dimension = max(self._cube.size, 2)
        self._sigma = _sigma(options.pop("sigma", 1 / 6))
        self._popsize = _popsize(
            options.pop("popsize", max(4 + int(3 * math.log(dimension)), context.workers))
        )
        if options:
            raise ValueError(f"it knows `sigma` and `popsize`, not `{next(iter(options))}`")
        self._restarts = 0
        self._es = self._strategy(self._cube.start)
        self._queue: list[Vector] = []
        self._results: list[_Result] = []
        self._earlier: deque[_Result] = deque(maxlen=_REMEMBERED)
        self._tells = 0
        self._restored = False

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._space

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        self._restore(study)
        drawn = trial.system_attrs.get(_DRAWN)
        if drawn is None:
            drawn = {
                "popsize": self._popsize,
                "generation": self._es.countiter,
                "after": self._tells,
                "x": list(self._draw()),
            }
            remember(study, trial, _DRAWN, drawn)
        return self._cube.decode(np.asarray(drawn["x"]))

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        raise AssertionError(f"the gene {param_name} is not in the space")

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        self._restore(study)
        if _DRAWN not in trial.system_attrs:
            return  # a baseline
        self._tells += 1
        remember(study, trial, _TOLD, self._tells)
        if state == TrialState.COMPLETE and values is not None:
            self._tell(trial, values[0])

    def _restore(self, study: Study) -> None:
        """Replay what earlier controllers of this study drew and told, in their order."""
        if self._restored:
            return
        self._restored = True
        trials = [t for t in study.get_trials(deepcopy=False) if _DRAWN in t.system_attrs]
        wanted = self._popsize
        if trials:
            self._popsize = int(trials[0].system_attrs[_DRAWN]["popsize"])
            self._es = self._strategy(self._cube.start)
        told = sorted(
            (t for t in trials if t.state.is_finished() and _TOLD in t.system_attrs),
            key=lambda trial: int(trial.system_attrs[_TOLD]),
        )
        for trial in sorted(trials, key=lambda trial: trial.number):
            drawn = trial.system_attrs[_DRAWN]
            self._replay_tells(told, until=int(drawn["after"]))
            self._widen(int(drawn["popsize"]))
            self._draw()
        self._replay_tells(told, until=None)
        self._widen(wanted)

    def _widen(self, popsize: int) -> None:
        """Go on from the best point with a population of at least `popsize`."""
        if popsize > self._popsize:
            self._popsize = popsize
            self._restart()

    def _replay_tells(self, told: list[FrozenTrial], *, until: int | None) -> None:
        while told and (until is None or self._tells < until):
            trial = told.pop(0)
            self._tells = int(trial.system_attrs[_TOLD])
            if trial.state == TrialState.COMPLETE and trial.values:
                self._tell(trial, trial.values[0])

    def _draw(self) -> Vector:
        if not self._queue:
            self._queue = list(self._es.ask())
        return np.asarray(self._queue.pop(0), dtype=np.float64)

    def _tell(self, trial: FrozenTrial, value: float) -> None:
        drawn = trial.system_attrs[_DRAWN]
        result = _Result(
            x=np.asarray(drawn["x"]),
            loss=-self._objective.oriented(value),
            variance=float(trial.user_attrs.get(VARIANCES, {}).get(self._objective.name, 0.0)),
            violation=sum(max(0.0, violation) for violation in trial.constraints.values()),
        )
        if self._es.countiter - drawn["generation"] > _STALE:
            self._earlier.append(result)
            return
        self._results.append(result)
        if len(self._results) >= self._popsize:
            self._next_generation()

    def _next_generation(self) -> None:
        if self._es._flgtelldone:  # pycma wants an ask between two tells
            self._es.ask()
        losses = _ranks(self._results, self._smoothed_losses())
        self._es.tell([result.x for result in self._results], losses)
        self._earlier += self._results
        self._results, self._queue = [], []
        if set(self._es.stop()) & set(_DEGENERATE):
            self._restart()

    def _smoothed_losses(self) -> Vector:
        """Return the losses of this generation without their noise, as far as its neighbours know."""
        centre = np.mean([result.x for result in self._results], axis=0)
        steps = [self._in_steps(result.x - centre) for result in self._earlier]
        distances = [float(np.linalg.norm(step)) / math.sqrt(self._es.N) for step in steps]
        near = sorted(
            (i for i, distance in enumerate(distances) if distance <= _NEAR), key=distances.__getitem__
        )[:_NEIGHBOURS]
        told = [*self._results, *(self._earlier[i] for i in near)]
        points = [*(self._in_steps(r.x - centre) for r in self._results), *(steps[i] for i in near)]
        losses = np.asarray([result.loss for result in told])
        # what lies far behind is broken in its own way, and says nothing about the shape of the top
        median = float(np.median(losses))
        clipped = np.minimum(losses, median + _CLIP * (median - losses.min()))
        variances = np.asarray([result.variance for result in told])
        return smoothed(np.stack(points), clipped, variances)[: len(self._results)]

    def _in_steps(self, difference: Vector) -> Vector:
        """Return a difference of two points in standard deviations of the strategy's distribution."""
        scaled = difference / self._es.sigma_vec.scaling / self._es.sigma
        return np.asarray(self._es.sm.transform_inverse(scaled), dtype=np.float64)

    def _restart(self) -> None:
        self._restarts += 1
        self._results, self._queue = [], []
        self._es = self._strategy(list(self._es.result.xfavorite))

    def _strategy(self, start: Sequence[float]) -> Any:
        rng = np.random.default_rng(derive(self._seed, "cma", self._restarts))
        start = [*start, 0.5] if len(start) == 1 else start  # pycma 4.5 crashes in one dimension
        inside = np.clip(start, 0.01, 0.99)  # a start on the bound has a zero gradient there
        options = {
            "bounds": [0, 1],
            "seed": np.nan,  # leave numpy's global stream alone
            "randn": lambda *shape: rng.standard_normal(shape),
            "popsize": self._popsize,
            "verbose": -9,
            "CMA_diagonal": len(inside) > _DIAGONAL_ABOVE,
        }
        return cma.CMAEvolutionStrategy(inside, self._sigma, options)


def _sigma(value: Value) -> float:
    if isinstance(value, bool | str) or not 0 < value <= 1:
        raise ValueError(f"`sigma` is a share of each gene's range, above 0 and at most 1, found {value}")
    return float(value)


def _popsize(value: Value) -> int:
    if type(value) is not int or value < 2:
        raise ValueError(f"`popsize` is a whole number of at least 2, found {value}")
    return value


def _ranks(results: Sequence[_Result], losses: Vector) -> list[float]:
    """Return the places CMA-ES goes by: the feasible by their loss, the others behind by violation."""
    keys = [
        (r.violation > 0, r.violation, 0.0 if r.violation > 0 else float(loss))
        for r, loss in zip(results, losses, strict=True)
    ]
    places = {key: float(place) for place, key in enumerate(sorted(set(keys)))}
    return [places[key] for key in keys]


SAMPLER = CmaSampler
