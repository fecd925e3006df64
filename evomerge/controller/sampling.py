"""From a sampler's name to an Optuna sampler for one search.

Our own samplers live in `samplers/`, one file each, as does one file for each of Optuna's that evomerge
knows; others come by entry point or as `optunahub:PACKAGE`, and get the same treatment.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from evomerge import plugins
from evomerge.archive.optuna_private import seen
from evomerge.archive.trials import as_scored
from evomerge.errors import RequestError
from evomerge.seeds import derive
from evomerge.space.genes import GeneSpec
from evomerge.types import Measure, Value


@dataclass(frozen=True, kw_only=True)
class SamplerContext:
    """What a sampler may know of the search it serves."""

    genes: tuple[GeneSpec, ...]
    objectives: tuple[Measure, ...]
    seed: int
    workers: int
    trials_before: int
    options: Mapping[str, Value]

    @property
    def stream_seed(self) -> int:
        """A seed for samplers that cannot continue a random stream: a new one for each resume."""
        return derive(self.seed, "sampler", self.trials_before) & 0xFFFFFFFF


def make_sampler(name: str, context: SamplerContext) -> BaseSampler:
    """Return the sampler. Raises `RequestError` for an unknown name, option or number of objectives."""
    try:
        if name.startswith("optunahub:"):
            sampler = _from_hub(name.removeprefix("optunahub:"), context)
        else:
            sampler = plugins.load("samplers", name)(context)
    except (TypeError, ValueError) as error:
        given = f" does not take {dict(context.options)}" if context.options else ""
        raise RequestError(f"sampler `{name}`{given}: {error}") from error
    return Shown(sampler)


class Shown(BaseSampler):
    """Shows a sampler the trials it can learn from, as it can.

    Some baselines (a parent, in a space of TIES merges) are no point of the space. Optuna's samplers work
    on what all trials have in common, so one trial without genes would blind them. Candidates that were
    given up early count with their estimated scores: they are pruned in the study, and most samplers would
    not look at them or take a prefix for the whole.
    """

    def __init__(self, inner: BaseSampler) -> None:
        self.inner = inner
        self._shown: tuple[Study, Study] | None = None

    def _seen(self, study: Study) -> Study:
        """Return the study as it is shown, always the same: it keeps what finished trials look like."""
        if self._shown is None or self._shown[0] is not study:
            self._shown = study, seen(study, _view)
        return self._shown[1]

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.inner.before_trial(self._seen(study), trial)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self.inner.infer_relative_search_space(self._seen(study), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self.inner.sample_relative(self._seen(study), trial, search_space)

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self.inner.sample_independent(self._seen(study), trial, param_name, param_distribution)

    def after_trial(
        self,
        study: Study,
        trial: FrozenTrial,
        state: TrialState,
        values: Sequence[float] | None,
    ) -> None:
        if not _has_genes(trial):
            return
        shown = as_scored(trial, state)
        if shown is not trial:
            state, values = shown.state, shown.values
        self.inner.after_trial(self._seen(study), shown, state, values)

    def reseed_rng(self) -> None:
        self.inner.reseed_rng()


def _view(trial: FrozenTrial) -> FrozenTrial | None:
    return as_scored(trial) if _has_genes(trial) else None


def _has_genes(trial: FrozenTrial) -> bool:
    return bool(trial.user_attrs.get("genes", True))


def _from_hub(package: str, context: SamplerContext) -> BaseSampler:
    """Return the one sampler an OptunaHub package offers. Loading it runs the package's code."""
    try:
        import optunahub
    except ImportError as error:
        raise RequestError("`optunahub:` samplers need `pip install optunahub`") from error
    try:
        module = optunahub.load_module(package)
    except Exception as error:  # the hub client raises whatever git or the network raises
        reason = (str(error).strip() or type(error).__name__).splitlines()[-1].strip(" '")  # git's own words
        raise RequestError(f"OptunaHub has no `{package}` that can be loaded: {reason}") from error
    kinds = [value for name, value in vars(module).items() if _offers(module, name, value)]
    if len(kinds) != 1:
        raise RequestError(f"OptunaHub package `{package}` offers {len(kinds)} samplers, not one")
    accepted = inspect.signature(kinds[0]).parameters
    seed = {"seed": context.stream_seed} if "seed" in accepted else {}
    sampler: BaseSampler = kinds[0](**seed, **context.options)
    return sampler


def _offers(module: Any, name: str, value: Any) -> bool:
    """Return whether a module means a value as its sampler: lists it, or defines it and lists nothing."""
    if not inspect.isclass(value) or not issubclass(value, BaseSampler) or value is BaseSampler:
        return False
    listed = getattr(module, "__all__", None)
    return name in listed if listed is not None else value.__module__.startswith(module.__name__)
