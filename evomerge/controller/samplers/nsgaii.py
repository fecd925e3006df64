"""NSGA-II: an evolving population, ranked by dominance and spread.

Deb et al. 2002, https://doi.org/10.1109/4235.996017; https://optuna.readthedocs.io (NSGAIISampler).
The population is smaller than Optuna's 50, so that a budget of 200 sees about ten generations.
"""

from __future__ import annotations

from typing import Any

from optuna.samplers import BaseSampler, NSGAIISampler

from evomerge.controller.sampling import SamplerContext


def make(context: SamplerContext) -> BaseSampler:
    """Return the sampler; its options are those of Optuna's `NSGAIISampler`."""
    options: dict[str, Any] = {"population_size": 20, "seed": context.stream_seed, **context.options}
    return NSGAIISampler(**options)


SAMPLER = make
