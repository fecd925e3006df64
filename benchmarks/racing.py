"""What racing saves and what it loses, on simulated merges of three parents: no model is run.

A stream of candidates, drawn at large and `--near` the best so far, is played against policies that look at
some items of each and let it go on to more or not. Without `--follow` all policies meet the same stream, that
of a search with full evaluation, so that regret is what a policy missed in it; with it each policy's own best
leads its stream on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, softmax

from evomerge.comparison.ease import Ease
from evomerge.comparison.estimate import greg
from evomerge.comparison.paired import Difference, compare
from evomerge.comparison.rivals import lead
from evomerge.seeds import derive
from evomerge.testing.siblings import PARENTS, Siblings

Vector = NDArray[np.float64]

LOOKS = (25, 50, 100, 200, 350)
STEP = 0.4  # s.d. of candidates near the best so far, where those at large have 1


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A merge: where it lies among all, its score on each item, and its mean score but for luck."""

    place: Vector  # (3,) logits of the parents' weights
    scores: Vector  # (N,)
    worth: float


@dataclass(frozen=True)
class Search:
    """One simulated search: the items, and how good a merge at each place is."""

    seed: int
    items: int
    near: float  # share of candidates that are drawn near the best so far
    steepness: float  # log-odds lost one s.d. off the best merge
    siblings: Siblings = field(init=False)
    peak: Vector = field(init=False)

    def __post_init__(self) -> None:
        rng = np.random.default_rng(derive(self.seed, "peak"))
        object.__setattr__(self, "siblings", Siblings.on(self.items, seed=self.seed))
        object.__setattr__(self, "peak", 0.5 * rng.normal(size=PARENTS))

    def parents(self) -> list[Candidate]:
        """Return the parents, who are scored on all items before the search."""
        corners = 4 * np.eye(PARENTS)
        return [
            self._candidate(corner, gain=-self.steepness, name=f"parent {k}")
            for k, corner in enumerate(corners)
        ]

    def propose(self, number: int, best: Candidate) -> Candidate:
        """Return candidate `number`, drawn near the best so far or at large."""
        rng = np.random.default_rng(derive(self.seed, "place", number))
        near, step = rng.random() < self.near, rng.normal(size=PARENTS)
        place = best.place + STEP * step if near and abs(best.place).max() < 4 else step
        off = float(((place - self.peak) ** 2).mean())
        return self._candidate(place, gain=-self.steepness * off, name=number)

    def _candidate(self, place: Vector, *, gain: float, name: str | int) -> Candidate:
        weights = softmax(place)
        return Candidate(
            place=place,
            scores=self.siblings.merge(weights, gain=gain, name=name),
            worth=float(expit(gain + weights @ self.siblings.views).mean()),
        )


@dataclass(frozen=True, kw_only=True)
class Standing:
    """What is known when candidates are judged: the best so far, and how easy the items are."""

    best: Vector  # (N,)
    ease: Ease


Proposer: TypeAlias = Callable[[int, Candidate], Candidate]
"""Candidate number so-and-so of a stream, given the best so far."""


class Policy(Protocol):
    """How many items candidates get: each generation is looked at after `ends` items, some go on."""

    @property
    def name(self) -> str:
        """What the table calls it."""
        ...

    @property
    def ends(self) -> tuple[int, ...]:
        """The numbers of items at each look."""
        ...

    @property
    def generation(self) -> int:
        """How many candidates are looked at together."""
        ...

    def keep(self, seen: Sequence[Vector], standing: Standing, look: int) -> list[int]:
        """Return which of those seen `(n,)` so far go on after a look that is not the last."""
        ...


@dataclass(frozen=True)
class Whole:
    """Everybody gets the same items and none is given up."""

    name: str
    ends: tuple[int, ...]
    generation: int = 1

    def keep(self, seen: Sequence[Vector], standing: Standing, look: int) -> list[int]:
        """Return all."""
        del standing, look
        return list(range(len(seen)))


@dataclass(frozen=True)
class Race:
    """Drops who is confidently not `margin` better than the best so far; looks share `alpha`."""

    name: str
    ends: tuple[int, ...]
    differ: Callable[[Vector, Standing], Difference | None]
    alpha: float
    margin: float = 0.0
    generation: int = 1

    def keep(self, seen: Sequence[Vector], standing: Standing, look: int) -> list[int]:
        """Return those that may still win."""
        del look
        alpha = self.alpha / (len(self.ends) - 1)
        found = [self.differ(scores, standing) for scores in seen]
        return [k for k, each in enumerate(found) if each is None or not each.below(alpha, self.margin)]


def paired(scores: Vector, standing: Standing) -> Difference | None:
    """Return the difference on the items seen, as a sample of all there could be."""
    return compare(scores.tolist(), standing.best[: len(scores)].tolist())


def leading(scores: Vector, standing: Standing) -> Difference | None:
    """Return the product's own difference: that on all search items (ADR 15)."""
    return lead(scores, standing.best, standing.ease)


@dataclass(frozen=True)
class Halving:
    """Keeps the best few of a generation after each look, by what they would score on all items."""

    name: str
    ends: tuple[int, ...]
    kept: tuple[int, ...]
    generation: int = 20

    def keep(self, seen: Sequence[Vector], standing: Standing, look: int) -> list[int]:
        """Return the best of them."""
        told = [greg(scores, standing.ease).mean for scores in seen]
        return sorted(range(len(seen)), key=lambda k: -told[k])[: self.kept[look]]


@dataclass(frozen=True, kw_only=True)
class Played:
    """What one policy spent in one search, and what it ended with."""

    cost: float  # share of the items that full evaluation takes
    pick: Candidate
    stream: tuple[Candidate, ...]
    gaps: tuple[float, ...]  # full mean of each candidate minus that of the best so far
    discordance: float


def play(policy: Policy, parents: Sequence[Candidate], propose: Proposer, budget: int) -> Played:
    """Let a policy judge a stream of candidates."""
    last, items = policy.ends[-1], len(parents[0].scores)
    ease = Ease.unknown(items)
    for parent in parents:
        ease = ease.add(parent.scores)
    best = max(parents, key=lambda parent: parent.scores[:last].mean())
    spent, stream, gaps, discordance = 0, [], [], []
    for first in range(0, budget, policy.generation):
        group = [propose(number, best) for number in range(first, min(first + policy.generation, budget))]
        stream += group
        gaps += [float(each.scores.mean() - best.scores.mean()) for each in group]
        discordance += [float((each.scores != best.scores).mean()) for each in group]
        standing = Standing(best=best.scores, ease=ease)
        before = 0
        for look, end in enumerate(policy.ends):
            spent += (end - before) * len(group)
            before = end
            if end < last:
                group = [group[k] for k in policy.keep([each.scores[:end] for each in group], standing, look)]
        for each in group:
            ease = ease.add(each.scores) if last == items else ease
            best = max(best, each, key=lambda one: one.scores[:last].mean())
    return Played(
        cost=spent / (budget * items),
        pick=best,
        stream=tuple(stream),
        gaps=tuple(gaps),
        discordance=float(np.mean(discordance)),
    )


def policies(items: int) -> list[Policy]:
    """Return the policies to compare; the first is full evaluation."""
    looks = (*(end for end in LOOKS if end < items), items)
    races = [Race(f"race, α = {alpha:g}", looks, paired, alpha) for alpha in (0.05, 0.2, 0.5)]
    few = (items // 10, 3 * items // 10, items)
    fewer = (items // 16, items // 4, items)
    return [
        Whole("all items", (items,)),
        *races,
        Race("race, α = 0.2, margin 0.01", looks, paired, 0.2, 0.01),
        Race("lead, α = 0.2", looks, leading, 0.2),
        Race("lead, α = 0.2, margin 0.01 (default)", looks, leading, 0.2, 0.01),
        Halving(f"halving {few[0]}, {few[1]}, {items}", few, (6, 2)),
        Halving(f"halving {fewer[0]}, {fewer[1]}, {items}", fewer, (5, 1)),
        Whole(f"the first {items // 5} items", (items // 5,)),
    ]


def table(searches: Sequence[Search], budget: int, *, follow: bool) -> list[str]:
    """Play every policy in every search and return the lines of the table."""
    items = searches[0].items
    against = policies(items)
    played: dict[str, list[Played]] = {policy.name: [] for policy in against}
    for search in searches:
        stream: tuple[Candidate, ...] = ()
        for policy in against:
            propose = search.propose if follow or not stream else _replay(stream)
            done = play(policy, search.parents(), propose, budget)
            stream = stream or done.stream
            played[policy.name].append(done)
    full = played[against[0].name]
    gaps = [gap for each in full for gap in each.gaps]
    return [
        f"{len(searches)} searches of {budget} candidates, {items} items. The best so far and a candidate",
        f"disagree on {np.mean([each.discordance for each in full]):.3f} of them; the candidate leads by",
        ", ".join(f"{quartile:+.3f}" for quartile in np.quantile(gaps, [0.25, 0.5, 0.75]))
        + " (quartiles).\n",
        "| policy | items | regret, points | its 90th percentile | regret without luck |",
        "|---|---|---|---|---|",
        *(_row(name, found, full) for name, found in played.items()),
    ]


def _replay(stream: Sequence[Candidate]) -> Proposer:
    def propose(number: int, best: Candidate) -> Candidate:
        del best
        return stream[number]

    return propose


def _row(name: str, found: Sequence[Played], full: Sequence[Played]) -> str:
    pairs = list(zip(found, full, strict=True))
    regret = np.array([theirs.pick.scores.mean() - ours.pick.scores.mean() for ours, theirs in pairs])
    without = np.mean([theirs.pick.worth - ours.pick.worth for ours, theirs in pairs])
    return (
        f"| {name} | {np.mean([each.cost for each in found]):.1%} | {100 * regret.mean():.2f} "
        f"| {100 * np.quantile(regret, 0.9):.2f} | {100 * without:.2f} |"
    )


def main() -> None:
    """Play and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=60)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--items", type=int, default=500)
    parser.add_argument("--near", type=float, default=0.0, help="share of candidates near the best so far")
    parser.add_argument("--steepness", type=float, default=2.0, help="log-odds lost one s.d. off the best")
    parser.add_argument("--follow", action="store_true", help="let each policy's own best lead its stream on")
    asked = parser.parse_args()
    started = time.monotonic()
    searches = [Search(seed, asked.items, asked.near, asked.steepness) for seed in range(asked.seeds)]
    for line in table(searches, asked.budget, follow=asked.follow):
        print(line)
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
