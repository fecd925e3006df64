"""Tree-structured Parzen estimator: models where good candidates lie.

Bergstra et al. 2011, https://papers.nips.cc/paper/4443; https://optuna.readthedocs.io (TPESampler).
"""

from __future__ import annotations

from typing import Any

from optuna.samplers import BaseSampler, TPESampler

from evomerge.controller.sampling import SamplerContext


def make(context: SamplerContext) -> BaseSampler:
    """Return the sampler; its options are those of Optuna's `TPESampler`."""
    options: dict[str, Any] = {"seed": context.stream_seed, **context.options}
    return TPESampler(**options)


SAMPLER = make
