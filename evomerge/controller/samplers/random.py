"""Random search: the baseline every other sampler has to beat.

Each candidate draws from its own stream, derived from the run's seed and the trial's number, so a
resumed or parallel search asks for exactly the same candidates.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from evomerge.controller.sampling import SamplerContext
from evomerge.seeds import derive
from evomerge.types import Value


class RandomSampler(BaseSampler):
    """Every gene uniform in its range, or over its choices."""

    def __init__(self, context: SamplerContext) -> None:
        if context.options:
            raise ValueError("it has no options")
        self._genes = {gene.name: gene for gene in context.genes}
        self._seed = context.seed

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Value:
        rng = np.random.default_rng(derive(self._seed, "random", trial.number, param_name))
        return self._genes[param_name].at(float(rng.random()))


SAMPLER = RandomSampler
