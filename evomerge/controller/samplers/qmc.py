"""Quasi-Monte Carlo: an even, scrambled cover of the space, as a baseline or for a first look.

https://optuna.readthedocs.io (QMCSampler). Its points depend on the seed and their number only, so a resumed
search continues the same sequence.
"""

from __future__ import annotations

import warnings
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, QMCSampler

from evomerge.controller.sampling import SamplerContext


def make(context: SamplerContext) -> BaseSampler:
    """Return the sampler; its options are those of Optuna's `QMCSampler`."""
    seed = context.seed & 0xFFFFFFFF
    options: dict[str, Any] = {
        "seed": seed,
        "scramble": True,
        **context.options,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return QMCSampler(warn_independent_sampling=False, **options)


SAMPLER = make
