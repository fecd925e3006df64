"""Every sampler there is keeps the contract, with one objective and with two."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeAlias

import numpy as np
import optunahub
import pytest
from optuna.samplers import BaseSampler, NSGAIISampler
from optuna.trial import TrialState

from evomerge import plugins
from evomerge.controller import samplers
from evomerge.controller.samplers.cma import CmaSampler, _ranks, _Result
from evomerge.controller.sampling import SamplerContext, Shown, make_sampler
from evomerge.errors import PluginError, RequestError
from evomerge.testing.samplers import (
    CHECKS,
    MIXED,
    SPACES,
    Case,
    Check,
    _Search,
    resumes_as_if_never_stopped,
)
from evomerge.types import Measure, Value

SETTINGS: dict[str, dict[str, Value]] = {
    "gp": {"n_startup_trials": 9},  # a fit takes up to a second
    "tpe": {"n_startup_trials": 5},
    "nsgaii": {"population_size": 6},
    "nsgaiii": {"population_size": 6},
}
TRIALS = {"gp": 10}
SINGLE = ("cma",)
"""Samplers that search for one objective only."""

NAMES = plugins.names("samplers")
CASES = [(name, count) for name in NAMES for count in (1, 2) if (name, count) != ("cma", 2)]


def case(name: str, objectives: int) -> Case:
    return Case(name=name, objectives=objectives, trials=TRIALS.get(name, 24), options=SETTINGS.get(name, {}))


def context(*, objectives: int = 1, **options: Value) -> SamplerContext:
    measures = [
        Measure(name=f"o{i}", task="t", metric="m", filter="none", higher_is_better=True)
        for i in range(objectives)
    ]
    return SamplerContext(
        genes=MIXED, objectives=tuple(measures), seed=7, workers=2, trials_before=0, options=options
    )


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_contract(name: str, objectives: int, check: Check) -> None:
    check(case(name, objectives))


@pytest.mark.parametrize("given_up", [False, True])
@pytest.mark.parametrize("name", ["cma", "random"])
def test_a_resumed_search_is_the_uninterrupted_one(name: str, given_up: bool) -> None:
    resumes_as_if_never_stopped(Case(name=name, trials=60), given_up=given_up)


@pytest.mark.parametrize(("name", "objectives"), [c for c in CASES if c[0] not in ("qmc", "random")])
def test_estimates_lead_the_search(name: str, objectives: int) -> None:
    """With other estimates of those given up, a sampler that learns goes elsewhere."""
    found = []
    for off in (0.0, 5.0):
        search = _Search(case(name, objectives))
        for i in range(TRIALS.get(name, 30) + 2):
            asked = search.record.ask()
            search.drop(asked, off=off if i % 2 else 0.0)
        found.append(search.params())
        assert {trial.state for trial in search.record.trials()} == {TrialState.PRUNED}
    assert found[0] != found[1]


def test_cma_is_told_how_uncertain_a_score_is() -> None:
    """An heir's score is one on all items, though it asked for none."""
    search = _Search(Case(name="cma"))
    asked = [search.record.ask() for _ in range(3)]
    search.tell(asked[0])
    search.record.tell_inherited(asked[1].number, 0, {"o0": -1.0}, {}, how="recipe", items=0)
    search.drop(asked[2])
    sampler = inner(search.record.study.sampler)
    assert isinstance(sampler, CmaSampler)
    assert [result.variance > 0 for result in sampler._results] == [False, False, True]
    assert sampler._results[1].loss == 1.0


def test_cma_ranks_the_infeasible_behind_by_their_violation() -> None:
    results = [
        _Result(x=np.zeros(2), loss=loss, variance=0.0, violation=violation)
        for loss, violation in ((0.5, 0.0), (0.1, 2.0), (0.7, 0.0), (0.2, 1.0))
    ]
    assert _ranks(results, np.array([0.5, 0.1, 0.4, 0.2])) == [1.0, 3.0, 0.0, 2.0]


@pytest.mark.parametrize(("name", "objectives"), CASES)
def test_the_best_is_never_a_candidate_that_was_given_up(name: str, objectives: int) -> None:
    search = _Search(case(name, objectives))
    for i in range(8):
        asked = search.record.ask()
        if i == 3:
            search.tell(asked)
        else:
            search.drop(asked, off=100.0)
    assert [trial.number for trial in search.record.study.best_trials] == [3]
    if objectives == 1:
        assert search.record.study.best_trial.number == 3


def test_cma_resumes_a_restarted_strategy() -> None:
    resumes_as_if_never_stopped(Case(name="cma", trials=60, options={"popsize": 4, "sigma": 1e-9}))


def test_cma_keeps_its_population_when_resumed_with_fewer_workers() -> None:
    """A larger population was told of more results before each step; replaying with a smaller one differs."""
    whole, first = (_Search(Case(name="cma", workers=32)) for _ in range(2))
    first.run(70)
    resumed = _Search(Case(name="cma", workers=2), storage=first.storage)
    assert resumed.run(30) == whole.run(100)[70:]


def test_cma_widens_its_population_when_resumed_with_more_workers() -> None:
    """With 16 answers under way a population of 8 would drop most of them as stale."""
    params = []
    for stops in ((60,), (25, 35)):
        search = _Search(Case(name="cma", workers=1))
        search.run(40)
        for trials in stops:
            search = _Search(Case(name="cma", workers=16), storage=search.storage)
            search.run(trials)
        params.append(search.params())
        sampler = inner(search.record.study.sampler)
        assert isinstance(sampler, CmaSampler)
        assert sampler._popsize == 16
    assert params[0] == params[1]


@pytest.mark.parametrize("name", ["gp", "nsgaii", "nsgaiii"])
def test_a_baseline_without_genes_does_not_hide_the_genes_of_the_others(name: str) -> None:
    search = _Search(case(name, 1))
    search.record.enqueue("parent", None)
    search.run(3)
    study = search.record.study
    found = study.sampler.infer_relative_search_space(study, study.get_trials()[-1])
    assert set(found) == {gene.name for gene in MIXED}


def test_every_file_is_covered() -> None:
    folder = Path(samplers.__file__).parent
    files = {file.stem for file in folder.glob("*.py")} - {"__init__"}
    assert "cma" in files
    assert {name for name, _ in CASES} >= files


@pytest.mark.parametrize("name", SINGLE)
def test_a_sampler_for_one_objective_refuses_two(name: str) -> None:
    with pytest.raises(RequestError, match=r"one objective, found 2; use `nsgaii` or `tpe`"):
        make_sampler(name, context(objectives=2))


def test_an_unknown_sampler_is_refused_with_the_one_meant() -> None:
    with pytest.raises(PluginError, match=r"^no sampler named `nsgai2`. Did you mean `nsgaii`\?"):
        make_sampler("nsgai2", context())


@pytest.mark.parametrize("value", ["wide", True])
def test_an_option_of_the_wrong_kind_is_refused(value: Value) -> None:
    with pytest.raises(RequestError, match=r"sampler `cma`"):
        make_sampler("cma", context(sigma=value))


@pytest.mark.parametrize("sigma", [0, -1.0, float("nan")])
def test_cma_needs_a_step(sigma: float) -> None:
    with pytest.raises(RequestError, match=r"sigma"):
        make_sampler("cma", context(sigma=sigma))


@pytest.mark.parametrize("popsize", [0, 1, 2.5])
def test_cma_needs_a_population(popsize: float) -> None:
    with pytest.raises(RequestError, match=r"popsize"):
        make_sampler("cma", context(popsize=popsize))


def test_cma_finds_the_optimum_of_a_bowl() -> None:
    search = _Search(Case(name="cma"), SPACES["many numbers"])
    search.run(600)
    values = [trial.values[0] for trial in search.record.trials()]
    assert max(values) > max(values[:30]) / 10


MINE = """
from optuna.samplers import BaseSampler, RandomSampler


class Mine(RandomSampler):
    pass
"""
CHOOSING = """
from optuna.samplers import NSGAIISampler, RandomSampler

__all__ = ["NSGAIISampler"]
"""

Publish: TypeAlias = Callable[[str], None]


@pytest.fixture
def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Publish:
    """Return a function that makes some text the package `samplers/mine` of a hub on this disk."""
    local = partial(optunahub.load_local_module, registry_root=str(tmp_path))
    monkeypatch.setattr(optunahub, "load_module", local)

    def write(text: str) -> None:
        package = tmp_path / "samplers" / "mine"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text(text)

    return write


def inner(sampler: BaseSampler) -> BaseSampler:
    assert isinstance(sampler, Shown)
    return sampler.inner


def test_a_package_of_optunahub_offers_its_sampler(publish: Publish) -> None:
    publish(CHOOSING)
    sampler = inner(make_sampler("optunahub:samplers/mine", context(population_size=4)))
    assert isinstance(sampler, NSGAIISampler)
    assert sampler._population_size == 4


def test_what_a_package_only_imports_is_not_its_sampler(publish: Publish) -> None:
    publish(MINE)
    assert type(inner(make_sampler("optunahub:samplers/mine", context()))).__name__ == "Mine"


@pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
def test_a_sampler_of_optunahub_keeps_the_contract(publish: Publish, check: Check) -> None:
    publish(MINE)
    check(Case(name="optunahub:samplers/mine"))


def test_an_unknown_option_of_a_package_is_refused(publish: Publish) -> None:
    publish(MINE)
    with pytest.raises(RequestError, match=r"sampler `optunahub:samplers/mine` does not take .*colour"):
        make_sampler("optunahub:samplers/mine", context(colour="red"))


def test_a_package_without_a_sampler_is_refused(publish: Publish) -> None:
    publish("")
    with pytest.raises(RequestError, match=r"^OptunaHub package `samplers/mine` offers 0 samplers, not one$"):
        make_sampler("optunahub:samplers/mine", context())


def test_a_package_that_is_not_there_is_refused(publish: Publish) -> None:
    with pytest.raises(
        RequestError, match=r"^OptunaHub has no `samplers/other` that can be loaded: .*samplers/other"
    ):
        make_sampler("optunahub:samplers/other", context())
