"""NSGA-III: NSGA-II spread along reference directions, for three objectives and more.

Deb and Jain 2014, https://doi.org/10.1109/TEVC.2013.2281535; https://optuna.readthedocs.io (NSGAIIISampler).
The population is smaller than Optuna's 50, so that a budget of 200 sees about ten generations.
"""

from __future__ import annotations

import warnings
from typing import Any

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIIISampler

from evomerge.controller.sampling import SamplerContext


def make(context: SamplerContext) -> BaseSampler:
    """Return the sampler; its options are those of Optuna's `NSGAIIISampler`."""
    options: dict[str, Any] = {"population_size": 20, "seed": context.stream_seed, **context.options}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return NSGAIIISampler(**options)


SAMPLER = make
