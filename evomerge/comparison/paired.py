"""The difference between two models on the same items, and how sure it is.

Pairing takes out what both find hard: the variance is that of the item differences dᵢ = ours − theirs, for
0/1 scores ψ − d̄² with ψ the share of items that only one of the two gets right.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SPARSE = 10
"""With fewer discordant pairs, t is no good approximation."""

_ROUNDING = 1e-12
"""Differences this close together, as a share of the largest score, are the same."""


@dataclass(frozen=True, kw_only=True)
class Difference:
    """The mean paired difference between two models; positive where ours is better.

    `deviation` is the sample standard deviation (over count − 1) of the item or cluster differences, 1/√count
    where all are equal: so few that agree prove nothing yet. `count` is their number and `df` the degrees of
    freedom. `wins` and `losses` count the items that only ours, only theirs got right; None where scores are
    not 0/1 or items are clustered.
    """

    mean: float
    deviation: float
    count: int
    df: float
    wins: int | None = None
    losses: int | None = None

    @property
    def standard_error(self) -> float:
        """The standard error of the mean."""
        return self.deviation / math.sqrt(self.count)

    @property
    def sparse(self) -> bool:
        """Whether so few pairs are discordant that the exact test decides, not t."""
        return self._discordant is not None and sum(self._discordant) < _SPARSE

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Return the two-sided confidence interval d̄ ± t·s/√n of the mean among all such items."""
        outside = (1 - level) / 2
        return self.lower(outside), self.upper(outside)

    def upper(self, alpha: float) -> float:
        """Return the one-sided upper bound d̄ + t₁₋α·s/√n, which the true mean exceeds with probability α."""
        return self.mean + self._half_width(alpha)

    def lower(self, alpha: float) -> float:
        """Return the one-sided lower bound d̄ − t₁₋α·s/√n."""
        return self.mean - self._half_width(alpha)

    def below(self, alpha: float, margin: float = 0.0) -> bool:
        """Whether the true difference is confidently less than `margin`.

        By t; by the exact mid-p test where pairs are sparse and the margin is zero.
        """
        if margin == 0 and self.sparse:
            return 1 - self.p_value() < alpha
        return self.upper(alpha) < margin

    def above(self, alpha: float, margin: float = 0.0) -> bool:
        """Whether the true difference is confidently more than `margin`, tested as `below` does."""
        if margin == 0 and self.sparse:
            return self.p_value() < alpha
        return self.lower(alpha) > margin

    def p_value(self) -> float:
        """Return the one-sided p-value of "ours is not better": mid-p where sparse, else by t."""
        if self._discordant is not None and self.sparse:
            return mid_p(*self._discordant)
        from scipy.special import stdtr

        return float(stdtr(self.df, -self.mean / self.standard_error))

    @property
    def _discordant(self) -> tuple[int, int] | None:
        return None if self.wins is None or self.losses is None else (self.wins, self.losses)

    def _half_width(self, alpha: float) -> float:
        from scipy.special import stdtrit  # scipy.stats has the same and takes a second to import

        return float(stdtrit(self.df, 1 - alpha)) * self.standard_error


def compare(
    ours: Sequence[float], theirs: Sequence[float], *, clusters: Sequence[str] | None = None
) -> Difference | None:
    """Return the difference between two models' scores `(n,)` of the same items, higher being better.

    `clusters[k]` names what item k shares with others (its passage, its template): such items are one
    observation. With m_g items and the total T_g of their differences in cluster g of G, that observation is
    d̄ + (T_g − m_g·d̄)·G/n, whose mean is d̄ and whose standard error is the clustered one (Miller 2024,
    https://arxiv.org/abs/2411.00640, there without G/(G − 1)). Clusters of one item each change nothing.

    None with fewer than two items or clusters, or a score that is not finite.
    """
    if not len(ours) == len(theirs) == len(ours if clusters is None else clusters):
        sizes = f"{len(ours)}, {len(theirs)}" + ("" if clusters is None else f" and {len(clusters)} clusters")
        raise ValueError(f"scores to compare must be of the same items, found {sizes}: pair them first")
    scores = np.asarray([ours, theirs], dtype=np.float64)  # (2, n)
    if not np.isfinite(scores).all():
        return None
    differences = scores[0] - scores[1]
    if clusters is None or len(set(clusters)) == len(clusters):
        observed, binary = differences, _are_binary(scores)
    else:
        observed, binary = _by_cluster(differences, clusters), False
    if len(observed) < 2:
        return None
    return Difference(
        mean=_mean(differences),
        deviation=_deviation(observed, scale=float(np.abs(scores).max())),
        count=len(observed),
        df=len(observed) - 1,
        wins=int((differences > 0).sum()) if binary else None,
        losses=int((differences < 0).sum()) if binary else None,
    )


def composite(parts: Sequence[Difference], weights: Sequence[float]) -> Difference:
    """Return the difference in Σₖ ωₖȳₖ of independent `parts` (other items each), one weight ωₖ per part.

    Its variance is V = Σ ωₖ²sₖ²/nₖ; its degrees of freedom V² / Σ (ωₖ²sₖ²/nₖ)²/νₖ are those of Welch and
    Satterthwaite (https://doi.org/10.2307/3002019). `count` is of all parts together.
    """
    variances = [(w * part.standard_error) ** 2 for w, part in zip(weights, parts, strict=True)]
    variance = math.fsum(variances)
    if not variance > 0:
        raise ValueError(f"a composite needs a part with a weight other than zero, found {list(weights)}")
    count = sum(part.count for part in parts)
    return Difference(
        mean=math.fsum(w * part.mean for w, part in zip(weights, parts, strict=True)),
        deviation=math.sqrt(variance * count),
        count=count,
        df=variance**2 / math.fsum(v**2 / part.df for v, part in zip(variances, parts, strict=True)),
    )


def mid_p(wins: int, losses: int) -> float:
    """Return McNemar's exact mid-p that ours is not better: P(X > w) + ½P(X = w), X ~ Bin(w + l, ½).

    Halving the observed outcome keeps the test near its nominal size where the exact one is conservative
    (Fagerland et al. 2013, https://doi.org/10.1186/1471-2288-13-91). ½ where no pair is discordant; that ours
    is not worse has the rest to 1.
    """
    pairs = wins + losses
    outcomes = 2 * sum(math.comb(pairs, k) for k in range(losses)) + math.comb(pairs, losses)
    return outcomes / (1 << (pairs + 1))


def _are_binary(scores: NDArray[np.float64]) -> bool:
    """Whether all scores are 0 or 1, or all are 0 or −1 (counts of errors, turned)."""
    return bool(any(((scores == 0) | (scores == one)).all() for one in (1, -1)))


def _by_cluster(differences: NDArray[np.float64], clusters: Sequence[str]) -> NDArray[np.float64]:
    """Return one observation per cluster `(G,)`, as `compare` says."""
    members: dict[str, list[float]] = defaultdict(list)
    for difference, cluster in zip(differences.tolist(), clusters, strict=True):
        members[cluster].append(difference)
    totals = np.array([math.fsum(found) for found in members.values()])
    sizes = np.array([len(found) for found in members.values()])
    mean = _mean(differences)
    return mean + (totals - sizes * mean) * len(members) / len(differences)


def _mean(values: NDArray[np.float64]) -> float:
    """Return the mean; summed exactly, so that the items' order does not matter to the last digit."""
    return math.fsum(values.tolist()) / len(values)


def _deviation(observed: NDArray[np.float64], *, scale: float) -> float:
    """Return the sample standard deviation, 1/√n where all are equal up to the rounding of such scores."""
    count = len(observed)
    if np.ptp(observed) <= _ROUNDING * scale:
        return 1 / math.sqrt(count)
    return math.sqrt(_mean((observed - _mean(observed)) ** 2) * count / (count - 1))
