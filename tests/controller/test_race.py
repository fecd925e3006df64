"""The race, fed by hand: who is compared with whom after each look, and what becomes of whom."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import pytest

from evomerge.archive.front import Member, ParetoArchive
from evomerge.archive.record import RunRecord
from evomerge.controller.race import Judgement, Race, Verdict
from evomerge.testing.siblings import PARENTS, Siblings
from evomerge.types import Aggregate, Scored
from tests.controller.raced import ENDS, ITEMS, Vector, measure, record, scored_on_first


@dataclass
class Fed:
    """A race whose candidates' scores are given by measure, as if evaluators had sent them."""

    record: RunRecord
    race: Race = field(init=False)
    archive: ParetoArchive = field(default_factory=ParetoArchive)

    def __post_init__(self) -> None:
        self.race = Race(self.record)

    def finish(self, number: int, *columns: Vector, feasible: bool = True) -> None:
        """Let a candidate with all its items in."""
        scored = self.scored(*columns)
        if feasible:
            oriented = tuple(m.oriented(scored.scores[m.name]) for m in self.record.objectives)
            self.archive = self.archive.add(Member(trial=number, scores=oriented))
        self.race.learn(number, scored, self.archive)

    def judged(self, number: int, look: int, *columns: Vector, first: bool = False) -> Judgement:
        """Return what becomes of a candidate with these scores after a look."""
        end = self.race.ends[look]
        return self.race.judge(number, self.scored(*(column[:end] for column in columns)), look, first=first)

    def raced(self, number: int, *columns: Vector) -> tuple[int, Judgement]:
        """Return after which look a candidate is done or given up; it learns of those who are done."""
        for look in range(len(self.race.ends)):
            judgement = self.judged(number, look, *columns)
            if judgement.verdict != Verdict.GO_ON:
                break
        if judgement.verdict == Verdict.DONE:
            self.finish(number, *columns)
        return look, judgement

    def scored(self, *columns: Vector) -> Scored:
        return scored_on_first(self.record, columns)


@pytest.fixture
def siblings() -> Siblings:
    return Siblings.on(ITEMS, seed=5)


def merged(siblings: Siblings, gain: float, name: str | int) -> Vector:
    return siblings.merge(np.full(PARENTS, 1 / PARENTS), gain=gain, name=name)


def start(fed: Fed, siblings: Siblings, best: float = 0.5) -> None:
    """Let four baselines in, of which trial 3 is the best."""
    for number, gain in enumerate((-1.0, -0.6, -0.3, best)):
        fed.finish(number, merged(siblings, gain, number))


def test_who_is_much_worse_than_the_incumbent_is_given_up_early_and_who_is_better_is_not(
    siblings: Siblings,
) -> None:
    fed = Fed(record(measure()))
    start(fed, siblings)
    look, judgement = fed.raced(4, merged(siblings, -3.0, "bad"))
    assert (judgement.verdict, look) == (Verdict.DROP, 0)
    assert judgement.reason.startswith("surely worse than trial 3 (t -0.")
    assert judgement.reason.endswith("on 25 items)")
    look, judgement = fed.raced(5, merged(siblings, 1.0, "good"))
    assert (judgement.verdict, look) == (Verdict.DONE, len(ENDS) - 1)


def test_the_race_is_run_against_the_new_incumbent_once_there_is_one(siblings: Siblings) -> None:
    fed = Fed(record(measure()))
    start(fed, siblings, best=-0.2)
    candidate = merged(siblings, -0.2, "fair")
    before = [fed.judged(9, look, candidate).verdict for look in range(4)]
    assert before == [Verdict.GO_ON] * 4
    fed.finish(4, merged(siblings, 2.5, "new best"))
    judgement = fed.judged(9, 3, candidate)
    assert judgement.verdict == Verdict.DROP
    assert "than trial 4" in judgement.reason


def test_of_equal_incumbents_the_first_is_the_rival_in_whatever_order_they_came(siblings: Siblings) -> None:
    """A resumed search counts trials by their numbers; with workers they came in another order."""
    best = merged(siblings, 1.0, "best")
    reasons = set()
    for order in ((4, 5), (5, 4)):
        fed = Fed(record(measure()))
        start(fed, siblings)
        for number in order:
            fed.finish(number, best)
        reasons.add(fed.judged(9, 1, merged(siblings, -3.0, "bad")).reason)
    (reason,) = reasons
    assert "than trial 4" in reason


def test_nobody_is_given_up_for_who_meets_no_constraint(siblings: Siblings) -> None:
    fed = Fed(record(measure()))
    fed.finish(0, merged(siblings, 1.5, "best"), feasible=False)
    assert fed.raced(1, merged(siblings, -3.0, "bad"))[1].verdict == Verdict.DONE


def test_nobody_is_given_up_before_there_is_a_rival(siblings: Siblings) -> None:
    fed = Fed(record(measure()))
    assert fed.raced(0, merged(siblings, -3.0, "bad"))[1].verdict == Verdict.DONE


def test_who_scores_as_the_incumbent_on_every_item_gets_all_items(siblings: Siblings) -> None:
    fed = Fed(record(measure()))
    start(fed, siblings)
    assert fed.raced(4, merged(siblings, 0.5, 3))[1].verdict == Verdict.DONE


def test_several_objectives_give_up_who_is_worse_than_one_rival_in_all_of_them(siblings: Siblings) -> None:
    """As bad as the worst member of the front in each, but beaten by no one of them in both: that stays."""
    other = Siblings.on(ITEMS, seed=6)
    fed = Fed(record(measure("a"), measure("b")))
    for number, gain in enumerate((-1.0, -0.5)):
        fed.finish(number, merged(siblings, gain, number), merged(other, gain, number))
    fed.finish(2, merged(siblings, 2.0, 2), merged(other, -1.5, 2))
    fed.finish(3, merged(siblings, -1.5, 3), merged(other, 2.0, 3))
    fed.finish(4, merged(siblings, 0.3, 4), merged(other, 0.3, 4))
    bad = fed.raced(5, merged(siblings, -3.0, 5), merged(other, -3.0, 5))[1]
    assert bad.verdict == Verdict.DROP
    assert "a -0." in bad.reason
    assert "b -0." in bad.reason
    traded = fed.raced(6, merged(siblings, -3.0, 6), merged(other, 3.0, 6))[1]
    assert traded.verdict == Verdict.DONE


@pytest.mark.parametrize(("bounds", "gain", "verdict"), [
    ("min: 0.5", -3.0, Verdict.DROP),
    ("min: 0.5", -0.2, Verdict.DONE),
    ("max: 0.5", 3.0, Verdict.DROP),
    ("max: 0.62", 0.0, Verdict.DONE),
])  # fmt: skip
def test_a_constraint_gives_up_who_surely_misses_it(
    siblings: Siblings, bounds: str, gain: float, verdict: Verdict
) -> None:
    """However good it is in the objective; who may meet it yet goes on."""
    other = Siblings.on(ITEMS, seed=6)
    fed = Fed(record(measure(), constraint=measure("safe"), bounds=bounds))
    fed.finish(0, merged(siblings, 0.0, 0), merged(other, 0.0, 0))
    look, judgement = fed.raced(1, merged(siblings, 2.0, 1), merged(other, gain, 1))
    assert judgement.verdict == verdict
    if verdict == Verdict.DROP:
        assert look < 3
        assert judgement.reason == f"safe surely misses {'≥ 0.5' if 'min' in bounds else '≤ 0.5'}"


def test_where_lower_is_better_the_higher_one_is_given_up(siblings: Siblings) -> None:
    fed = Fed(record(measure(up=False)))
    for number, gain in enumerate((-1.0, 0.0, 0.5)):
        fed.finish(number, 1 - merged(siblings, gain, number))  # errors
    bad = fed.raced(3, 1 - merged(siblings, -3.0, 3))[1]
    assert bad.verdict == Verdict.DROP
    assert "than trial 2 (t -0." in bad.reason
    assert fed.raced(4, 1 - merged(siblings, 2.0, 4))[1].verdict == Verdict.DONE


def texts_read(seed: int, better: float) -> Vector:
    """Return a model's log-likelihoods of texts, which differ by 3 where models do by 0.2."""
    easy = np.random.default_rng(seed).normal(-8, 3, size=ITEMS)
    own = np.random.default_rng([seed, round(1000 * better) + 9000]).normal(0, 0.2, size=ITEMS)
    return np.asarray(easy + better + own)


def texts(kind: Aggregate, *, seed: int) -> tuple[Fed, Vector]:
    """Return a race that knows four models, and the log-likelihoods of another."""
    fed = Fed(record(measure(up=False, kind=kind)))
    for number in range(4):
        fed.finish(number, texts_read(seed, 0.1 * number))
    return fed, texts_read(seed, 0.15)


@pytest.mark.parametrize("kind", ["perplexity", "weighted_perplexity", "bits_per_byte"])
def test_perplexities_race_by_log_likelihoods(kind: Aggregate) -> None:
    made, _ = texts(kind, seed=2)
    look, bad = made.raced(4, texts_read(2, -1.0))
    assert (bad.verdict, look) == (Verdict.DROP, 0)
    assert made.raced(5, texts_read(2, 1.0))[1].verdict == Verdict.DONE


@pytest.mark.parametrize("kind", ["perplexity", "weighted_perplexity", "bits_per_byte"])
def test_an_estimate_of_a_perplexity_is_closer_than_that_of_its_first_items(kind: Aggregate) -> None:
    """By as much as texts differ more than models do, and it knows how close it is."""
    by_estimate, by_part, claimed = [], [], []
    for seed in range(20):
        made, candidate = texts(kind, seed=seed)
        whole, part = (made.scored(candidate[:n]).scores["t"] for n in (ITEMS, 50))
        found = made.race.estimate(made.scored(candidate[:50]))
        by_estimate.append((found.scores["t"] / whole - 1) ** 2)
        by_part.append((part / whole - 1) ** 2)
        claimed.append(found.variances["t"] / whole**2)
    assert np.mean(by_estimate) < np.mean(by_part) / 10
    assert 0.4 < np.mean(by_estimate) / np.mean(claimed) < 2.5


def test_of_a_measure_that_is_no_mean_over_items_nothing_can_be_said(siblings: Siblings) -> None:
    for made in (
        record(measure(), measure("bleu", kind="other")),
        record(measure(), constraint=measure("bleu", kind="other"), bounds="min: 0.9"),
    ):
        fed = Fed(made)
        assert fed.race.ends == (ITEMS,)
        start_scores = merged(siblings, 1.0, 0), np.full(ITEMS, math.nan)
        fed.finish(0, *start_scores)
        bad = fed.raced(1, merged(siblings, -3.0, 1), np.full(ITEMS, math.nan))
        assert bad == (0, Judgement(verdict=Verdict.DONE))


@pytest.mark.parametrize("rules", ["racing: off\n", "racing: {looks: [1000]}\n", "racing: {looks: [400]}\n"])
def test_without_looks_all_are_scored_at_once(siblings: Siblings, rules: str) -> None:
    fed = Fed(record(measure(), rules=rules))
    start(fed, siblings)
    assert fed.race.ends == (ITEMS,)
    assert not fed.race.enters_start(0)
    assert fed.raced(4, merged(siblings, -3.0, "bad")) == (0, Judgement(verdict=Verdict.DONE))


def test_25_items_are_scored_at_once() -> None:
    fed = Fed(record(measure(), rules="", counts=[25]))
    assert fed.race.ends == (25,)
    assert not fed.race.enters_start(0)


def test_a_task_with_few_items_is_certain_once_they_are_asked() -> None:
    """The smaller objective is known after the second look; the larger goes on being looked at."""
    large, small = Siblings.on(ITEMS, seed=5), Siblings.on(40, seed=6)
    fed = Fed(record(measure("large"), measure("small"), counts=[ITEMS, 40]))
    assert fed.race.ends == ENDS
    for number, gain in enumerate((-0.5, 0.0, 0.5)):
        fed.finish(number, merged(large, gain, number), merged(small, gain + 3, number))
    worse, better = merged(small, -3.0, "w"), np.ones(40)
    judgement = fed.raced(3, merged(large, -3.0, 3), worse)[1]
    assert judgement.verdict == Verdict.DROP
    assert fed.raced(4, merged(large, -3.0, 3), better)[1].verdict == Verdict.DONE
    so_far = fed.scored(merged(large, 0.0, 9)[:100], worse)
    assert fed.race.estimate(so_far).scores["small"] == pytest.approx(worse.mean())
    assert fed.race.estimate(so_far).variances["small"] == 0
    assert fed.race.estimate(so_far).variances["large"] > 0


def test_an_estimate_says_how_uncertain_it_is_also_where_nobody_has_all_items(siblings: Siblings) -> None:
    """Of who misses a constraint before any baseline is in: its first answers are all that is known."""
    fed = Fed(record(measure()))
    part = merged(siblings, 0.0, 0)[:25]
    found = fed.race.estimate(fed.scored(part))
    assert found.scores["t"] == pytest.approx(part.mean())
    assert found.variances["t"] == pytest.approx(part.var(ddof=1) / 25 * (1 - 25 / ITEMS))


# The first few, who have nobody to be compared with.


def test_the_first_few_halve_one_another(siblings: Siblings) -> None:
    fed = Fed(record(measure(), rules="racing: {cold_start: 6, margin: 0}\n"))
    assert [fed.race.enters_start(position) for position in (0, 5, 6)] == [True, True, False]
    gains = {10 + k: -2.0 + 0.8 * k for k in range(6)}
    columns = {number: merged(siblings, gain, number) for number, gain in gains.items()}
    for number, column in columns.items():
        assert fed.judged(number, 0, column, first=True).verdict == Verdict.GO_ON
        assert fed.race.release() == {}
        assert fed.judged(number, 1, column, first=True).verdict == Verdict.WAIT
    assert sorted(fed.race.waiting) == sorted(columns)
    found = fed.race.release()
    kept = [number for number, each in found.items() if each.verdict == Verdict.GO_ON]
    assert 2 <= len(kept) <= 3  # a third, and one more if it cannot be told from the last
    assert kept == sorted(kept, key=lambda number: -columns[number][:50].mean())
    assert {each.reason for number, each in found.items() if number not in kept} == {
        "of the first 6 candidates, a third goes on after 50 items"
    }
    assert fed.race.waiting == ()
    for number in kept:
        assert fed.judged(number, 2, columns[number], first=True).verdict == Verdict.GO_ON
        assert fed.judged(number, 3, columns[number], first=True).verdict == Verdict.WAIT
    second = fed.race.release()
    final = [number for number, each in second.items() if each.verdict == Verdict.GO_ON]
    assert len(final) == 1
    assert fed.judged(final[0], 5, columns[final[0]], first=True).verdict == Verdict.DONE
    assert not fed.race.enters_start(0)


def test_one_of_the_first_few_that_a_baseline_beats_is_not_waited_for(siblings: Siblings) -> None:
    fed = Fed(record(measure(), rules="racing: {cold_start: 2, margin: 0}\n"))
    start(fed, siblings)
    assert fed.judged(10, 0, merged(siblings, -3.0, 10), first=True).verdict == Verdict.DROP
    for look, verdict in ((0, Verdict.GO_ON), (1, Verdict.WAIT)):
        assert fed.judged(11, look, merged(siblings, 1.0, 11), first=True).verdict == verdict
    assert {number: each.verdict for number, each in fed.race.release().items()} == {11: Verdict.GO_ON}


def test_those_that_wait_go_on_when_no_others_will_come(siblings: Siblings) -> None:
    fed = Fed(record(measure(), rules="racing: {cold_start: 9, margin: 0}\n"))
    for number in (1, 2):
        assert fed.judged(number, 1, merged(siblings, 0.0, number), first=True).verdict == Verdict.WAIT
    assert fed.race.release() == {}
    assert set(fed.race.release(all_are_in=True)) == {1, 2}


def test_behind_the_first_few_nobody_waits(siblings: Siblings) -> None:
    fed = Fed(record(measure(), rules="racing: {cold_start: 9, margin: 0}\n"))
    assert fed.judged(30, 1, merged(siblings, 0.0, 30)).verdict == Verdict.GO_ON


# What the race promises, on simulated searches.


@dataclass
class Played:
    """What became of simulated searches: who would have been the new best and was given up, and the cost."""

    better: int = 0
    lost: int = 0
    spent: int = 0
    whole: int = 0
    regrets: list[float] = field(default_factory=list)


def played(rules: str, *, streams: int, candidates: int = 60) -> Played:
    """Play searches of so many candidates, the first few of which wait for one another by the rules."""
    total = Played()
    for seed in range(streams):
        siblings = Siblings.on(ITEMS, seed=seed)
        fed = Fed(record(measure(), rules=rules))
        for number in range(5):
            fed.finish(number, siblings.any_merge(f"baseline {number}"))
        scores = {number: siblings.any_merge(number) for number in range(5, 5 + candidates)}
        first = [number for number in scores if fed.race.enters_start(number - 5)]
        _play_first(fed, {number: scores[number] for number in first}, total)
        for number in list(scores)[len(first) :]:
            best = max(member.scores[0] for member in fed.archive.front)
            look, judgement = fed.raced(number, scores[number])
            total.better += scores[number].mean() > best
            total.lost += scores[number].mean() > best and judgement.verdict == Verdict.DROP
            total.spent += ENDS[look]
        found = max(member.scores[0] for member in fed.archive.front)
        total.regrets.append(max(found, *(column.mean() for column in scores.values())) - found)
        total.whole += candidates * ITEMS
    return total


def _play_first(fed: Fed, columns: dict[int, Vector], total: Played) -> None:
    going = dict.fromkeys(columns, 0)  # candidates, and the look at which they are
    while going:
        for number in list(going):
            verdict = Verdict.GO_ON
            while verdict == Verdict.GO_ON:
                verdict = fed.judged(number, going[number], columns[number], first=True).verdict
                going[number] += verdict == Verdict.GO_ON
            if verdict in (Verdict.DROP, Verdict.DONE):
                total.spent += ENDS[going.pop(number)]
            if verdict == Verdict.DONE:
                fed.finish(number, columns[number])
        for number, judgement in fed.race.release().items():
            if judgement.verdict == Verdict.DROP:
                total.spent += ENDS[going.pop(number)]
            else:
                going[number] += 1


def test_whoever_would_be_the_new_best_is_rarely_given_up_and_most_items_are_saved() -> None:
    """Twenty-four searches without a first few: at most the share asked, and much less is to be expected."""
    alpha = 0.2
    found = played(f"racing: {{cold_start: 0, margin: 0, alpha: {alpha}}}\n", streams=24)
    assert found.better > 40
    assert found.lost / found.better <= alpha
    assert found.spent / found.whole < 0.45
    assert np.mean(found.regrets) < 0.003


def test_the_first_few_cost_less_and_little_is_lost() -> None:
    found = played("racing: on\n", streams=24)
    assert found.spent / found.whole < 0.4
    assert np.mean(found.regrets) < 0.005
