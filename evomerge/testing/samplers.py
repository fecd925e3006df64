"""The contract of a sampler, as checks on small searches in memory.

`check_sampler("mine")` runs all of them; each is also a function of its own in `CHECKS`, so that a test
suite can name the promise that was broken::

    @pytest.mark.parametrize("check", CHECKS.values(), ids=CHECKS)
    def test_my_sampler(check):
        check(Case(name="mine", objectives=2))

A check raises `AssertionError` saying which promise does not hold. The sampler is found by its name and used
as a search uses it: asked and told through `StudyRecord`, late, out of order, and with failures in between.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from optuna.storages import BaseStorage, InMemoryStorage

from evomerge.archive.study import StudyRecord
from evomerge.archive.trials import Asked, Dropped
from evomerge.controller.sampling import SamplerContext, make_sampler
from evomerge.errors import RequestError
from evomerge.space.genes import GeneSpec
from evomerge.types import Failed, Measure, Params, Scored, Value

_NUMBER = GeneSpec(name="weight/math/L0-3", low=-0.5, high=1.5, start=1.0)
_LOG = GeneSpec(name="density/math/L0-3", low=0.01, high=1.0, log=True, start=1.0)
_WORD = GeneSpec(name="method", choices=("ties", "linear", "slerp"), start="ties")
_BOOL = GeneSpec(name="normalize/L0-3", choices=(True, False), start=False)
_WHOLE = GeneSpec(name="path/times/math/L0-3", low=0, high=2, whole=True, start=1)

SPACES: Mapping[str, tuple[GeneSpec, ...]] = {
    "mixed": (_WORD, _NUMBER, _LOG, _BOOL, _WHOLE),
    "one number": (_NUMBER,),
    "one number on a logarithm": (_LOG,),
    "one choice": (_WORD,),
    "one choice of one": (GeneSpec(name="method", choices=("ties",), start="ties"),),
    "one whole number": (_WHOLE,),
    "many numbers": tuple(
        GeneSpec(name=f"weight/math/L{i}", low=0.0, high=1.5, start=1.0) for i in range(20)
    ),
}
"""Genes to search over, by what is special about them."""

MIXED = SPACES["mixed"]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A sampler to check: its name, how many objectives, trials and workers to try it with, its options."""

    name: str
    objectives: int = 1
    trials: int = 24
    workers: int = 3
    options: Mapping[str, Value] = field(default_factory=dict)


Check: TypeAlias = Callable[[Case], None]


class _Search:
    """A search without models: asks `case`'s sampler and scores by a formula."""

    def __init__(
        self,
        case: Case,
        genes: tuple[GeneSpec, ...] = MIXED,
        *,
        seed: int = 1,
        storage: BaseStorage | None = None,
    ) -> None:
        self.genes = genes
        self.storage = storage or InMemoryStorage()
        self._measures = tuple(
            Measure(name=f"o{i}", task="t", metric="m", filter="none", higher_is_better=i == 0)
            for i in range(case.objectives)
        )
        self.record = StudyRecord(self.storage, "check", objectives=self._measures, genes=genes, sampler=None)
        context = SamplerContext(
            genes=genes,
            objectives=self._measures,
            seed=seed,
            workers=case.workers,
            trials_before=len(self.record.trials()),
            options=case.options,
        )
        self.record.study.sampler = make_sampler(case.name, context)

    def tell(self, asked: Asked, constraints: Mapping[str, float] | None = None) -> None:
        scores = {each.name: self._score(asked.params, i) for i, each in enumerate(self._measures)}
        scored = Scored(scores=scores, items=(), merge_seconds=0.0, score_seconds=0.0, device="cpu")
        self.record.tell_scored(asked.number, scored, constraints or {})

    def drop(self, asked: Asked, *, off: float = 0.0, items: int = 25) -> None:
        """Give a candidate up, with its score, or one that is `off` in the first objective, for an estimate.

        What it scored on its first items is far from that, as nothing may be learnt from it.
        """
        estimates = {each.name: self._score(asked.params, i) for i, each in enumerate(self._measures)}
        estimates[self._measures[0].name] += off
        so_far = Scored(
            scores={name: 10.0 - score for name, score in estimates.items()},
            items=(),
            merge_seconds=0.0,
            score_seconds=0.0,
            device="cpu",
        )
        given_up = Dropped(
            reason="on purpose",
            items=items,
            so_far=so_far,
            estimates=estimates,
            variances=dict.fromkeys(estimates, 1e-6),
        )
        self.record.tell_dropped(asked.number, given_up, {})

    def fail(self, asked: Asked) -> None:
        self.record.tell_failed(asked.number, Failed(reason="on purpose"))

    def run(self, trials: int) -> list[Params]:
        """Ask and tell in turn, and return what was asked."""
        params = []
        for _ in range(trials):
            asked = self.record.ask()
            params.append(asked.params)
            self.tell(asked)
        return params

    def params(self) -> list[Params]:
        """Return the parameters of every trial, by number."""
        return [dict(trial.params) for trial in self.record.trials()]

    def _score(self, params: Params, objective: int) -> float:
        """Return a score with its optimum inside the space, elsewhere for each objective."""
        shares = [_share(gene, params[gene.name]) for gene in self.genes if gene.name in params]
        return sum((share - 0.3 - 0.4 * objective) ** 2 for share in shares) * (objective or -1)


def check_sampler(
    name: str, *, objectives: int = 1, trials: int = 24, options: Mapping[str, Value] | None = None
) -> None:
    """Run every check on the sampler `name`. Raises `AssertionError` for the first that fails."""
    case = Case(name=name, objectives=objectives, trials=trials, options=options or {})
    for check in CHECKS.values():
        check(case)


def stays_inside_every_space(case: Case) -> None:
    """Every candidate has a value for every gene, in its range or among its choices."""
    for what, genes in SPACES.items():
        for params in _Search(case, genes).run(case.trials):
            _inside(case, genes, params, f"a space of {what}")


def explores(case: Case) -> None:
    """Among many candidates no number is always the same."""
    found = _Search(case).run(case.trials)
    for gene in (_NUMBER, _LOG):
        values = {params[gene.name] for params in found}
        _hold(len(values) > case.trials // 4, f"`{case.name}` tried {len(values)} values of {gene.name}")


def survives_failures(case: Case) -> None:
    """Trials that fail, also the very first ones, do not stop it."""
    search = _Search(case)
    for i in range(case.trials):
        asked = search.record.ask()
        _inside(case, MIXED, asked.params, "a search with failures")
        if i < 4 or i % 3 == 0:
            search.fail(asked)
        else:
            search.tell(asked)


def takes_answers_late_and_out_of_order(case: Case) -> None:
    """With several candidates under way, and one that takes very long, it keeps asking."""
    for asked in _out_of_order(_Search(case), case.trials):
        _inside(case, MIXED, asked.params, "an asynchronous search")


def takes_constraints(case: Case) -> None:
    """Constraints that are missed, by all candidates at first, do not stop it."""
    search = _Search(case)
    for i in range(case.trials):
        asked = search.record.ask()
        _inside(case, MIXED, asked.params, "a search with constraints")
        violation = 0.5 if i < 6 else float(asked.params[_NUMBER.name]) - 0.5
        search.tell(asked, {"size": violation, "cost": -1.0})


def takes_estimates_for_scores(case: Case) -> None:
    """Candidates that were all given up as early count as if they had scored what they are estimated to."""
    scored, given_up = _Search(case), _Search(case)
    for _ in range(case.trials):
        one, other = scored.record.ask(), given_up.record.ask()
        _hold(one.params == other.params, f"`{case.name}` learns otherwise from candidates given up")
        scored.tell(one)
        given_up.drop(other)


def works_beside_trials_without_genes(case: Case) -> None:
    """Baselines that are no point of the space, scored or failed, do not blind it."""
    search = _Search(case)
    for label, params in (("base", None), ("average", _start(MIXED)), ("parent", None)):
        search.record.enqueue(label, params)
    first = search.record.ask()
    search.fail(search.record.ask())
    _hold(first.params == {}, f"`{case.name}` gave genes to a trial that has none")
    search.tell(first)
    for i in range(case.trials):
        asked = search.record.ask()
        if i > 0:
            _inside(case, MIXED, asked.params, "a search with baselines")
        search.tell(asked)


def repeats_under_one_seed(case: Case) -> None:
    """One seed and one order of answers give the same candidates; another seed gives others."""
    once, again, other = (_Search(case, seed=seed) for seed in (1, 1, 2))
    for search in (once, again, other):
        _out_of_order(search, case.trials)
    _hold(once.params() == again.params(), f"`{case.name}` differs between two runs of one seed")
    _hold(once.params() != other.params(), f"`{case.name}` does not listen to the seed")


def draws_from_its_own_stream(case: Case) -> None:
    """The global random states of Python and numpy are neither read nor moved."""
    states = random.getstate(), np.random.get_state()
    try:
        random.seed(1)
        np.random.seed(1)
        before = random.getstate(), _numpy_state()
        once = _Search(case).run(case.trials)
        _hold((random.getstate(), _numpy_state()) == before, f"`{case.name}` moves the global random state")
        random.seed(2)
        np.random.seed(2)
        _hold(_Search(case).run(case.trials) == once, f"`{case.name}` reads the global random state")
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])


def goes_on_after_a_crash(case: Case) -> None:
    """A new sampler on an old study finishes what was under way and does not begin again at the beginning."""
    first = _Search(case)
    first.run(case.trials // 2)
    under_way = [first.record.ask() for _ in range(3)]
    second = _Search(case, storage=first.storage)
    left = second.record.unfinished()
    _hold(left == under_way, f"`{case.name}` changed candidates that were under way")
    for asked in left:
        second.tell(asked)
    earlier = second.params()
    later = second.run(case.trials // 2)
    for params in later:
        _inside(case, MIXED, params, "a resumed search")
    repeats = sum(params in earlier for params in later)  # children may equal a parent now and then
    _hold(repeats <= len(later) // 2, f"`{case.name}` asks again for what it asked for before the crash")


def refuses_options_it_does_not_know(case: Case) -> None:
    """A misspelt option is a `RequestError`, not a search with other settings than asked for."""
    try:
        _Search(Case(name=case.name, objectives=case.objectives, options={"no_such_option": 1}))
    except RequestError as error:
        _hold("no_such_option" in str(error), f"`{case.name}` does not name the option: {error}")
        return
    raise AssertionError(f"`{case.name}` accepts an option it does not know")


CHECKS: Mapping[str, Check] = {
    check.__name__: check
    for check in (
        stays_inside_every_space,
        explores,
        survives_failures,
        takes_answers_late_and_out_of_order,
        takes_constraints,
        takes_estimates_for_scores,
        works_beside_trials_without_genes,
        repeats_under_one_seed,
        draws_from_its_own_stream,
        goes_on_after_a_crash,
        refuses_options_it_does_not_know,
    )
}
"""Every check by name, in the order `check_sampler` runs them."""


def resumes_as_if_never_stopped(case: Case, *, given_up: bool = False) -> None:
    """A resumed search asks for just what an uninterrupted one asks, also if most are `given_up` early.

    Also if most candidates are `given_up` early. Not in `CHECKS`: a sampler whose random stream cannot be
    continued may promise less.
    """
    whole = _Search(case)
    _out_of_order(whole, case.trials, given_up=given_up)
    for stop in (1, case.trials // 3, case.trials - 2):
        resumed = _Search(case)
        _out_of_order(resumed, case.trials, given_up=given_up, crash_after=stop, case=case)
        _hold(
            _Search(case, storage=resumed.storage).params() == whole.params(),
            f"`{case.name}`, stopped after {stop} answers, goes on otherwise than uninterrupted",
        )


def _out_of_order(
    search: _Search,
    trials: int,
    *,
    given_up: bool = False,
    crash_after: int | None = None,
    case: Case | None = None,
) -> list[Asked]:
    """Run with three under way, answer the youngest first, and the very first one last of all.

    Two in three are `given_up` early if so asked. After `crash_after` answers another controller takes the
    search over. Returns what was asked.
    """
    under_way: list[Asked] = []
    found: list[Asked] = []
    answers = 0
    while answers < trials:
        while len(under_way) < min(3, trials - answers):
            under_way.append(search.record.ask())
            found.append(under_way[-1])
        if given_up and answers % 3:
            search.drop(under_way.pop())
        else:
            search.tell(under_way.pop())
        answers += 1
        if case is not None and answers == crash_after:
            search = _Search(case, search.genes, storage=search.storage)
            under_way = search.record.unfinished()
    return found


def _inside(case: Case, genes: Sequence[GeneSpec], params: Params, where: str) -> None:
    _hold(
        set(params) == {gene.name for gene in genes},
        f"`{case.name}` gave values for {sorted(params)} in {where}",
    )
    for gene in genes:
        value = params[gene.name]
        if gene.choices is not None:
            fits = any(type(value) is type(choice) and value == choice for choice in gene.choices)
        else:
            fits = type(value) is (int if gene.whole else float) and gene.low <= value <= gene.high
        _hold(fits, f"`{case.name}` gave {gene.name} the value {value!r} in {where}")


def _share(gene: GeneSpec, value: Value) -> float:
    if gene.choices is not None:
        return gene.choices.index(value) / len(gene.choices)
    return (float(value) - gene.low) / (gene.high - gene.low)


def _start(genes: Sequence[GeneSpec]) -> Params:
    return {gene.name: gene.start for gene in genes}


def _numpy_state() -> tuple[object, ...]:
    kind, keys, *rest = np.random.get_state(legacy=True)
    return kind, tuple(np.asarray(keys).tolist()), *rest


def _hold(promise: bool, otherwise: str) -> None:
    if not promise:
        raise AssertionError(otherwise)
