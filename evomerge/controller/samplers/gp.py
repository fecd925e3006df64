"""Gaussian-process optimisation: a surrogate of the scores, searched for expected improvement.

https://optuna.readthedocs.io (GPSampler). Costs up to a second of the controller per candidate.
"""

from __future__ import annotations

from typing import Any

from optuna.samplers import BaseSampler, GPSampler

from evomerge.controller.sampling import SamplerContext


def make(context: SamplerContext) -> BaseSampler:
    """Return the sampler; its options are those of Optuna's `GPSampler`."""
    options: dict[str, Any] = {"seed": context.stream_seed, **context.options}
    return GPSampler(**options)


SAMPLER = make
