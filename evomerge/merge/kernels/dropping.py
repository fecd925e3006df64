"""DARE's first step: drop entries at random and rescale what stays."""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge.merge.method import Site
from evomerge.parameters import Choice, Gene

if TYPE_CHECKING:
    from torch import Tensor

CHANCE_TO_STAY = Gene(
    low=0.05,
    high=1.0,
    default=1.0,
    meaning="chance of each entry to stay",
    least=0.0,
    most=1.0,
    also={"drop_rate": lambda rate: 1 - rate},
)
RESCALE = Choice(
    options=("auto", "inverse_density", "l1", "none"),
    default="auto",
    meaning="how the kept entries make up for the dropped; `auto` is `inverse_density`, "
    "and `l1` under mergekit's semantics",
    also={True: "auto", False: "none"},
)
_NO_NORM = 1e-7


def drop(deltas: Tensor, density: tuple[float, ...], site: Site, *, rescale: str, compat: str) -> Tensor:
    """Return `deltas (n, *s)` of which a `density (n,)` of the entries stayed, rescaled."""
    if rescale == "auto":
        rescale = "l1" if compat == "mergekit" else "inverse_density"
    kept = deltas.new_empty(deltas.shape)
    for i, (delta, share) in enumerate(zip(deltas, density, strict=True)):
        kept[i] = delta if share >= 1 else _drop_one(delta, share, i, site, rescale)
    return kept


def _drop_one(delta: Tensor, share: float, source: int, site: Site, rescale: str) -> Tensor:
    kept = delta * (site.uniform(source, delta) < share)
    if rescale == "inverse_density" and share > 0:
        return kept / share
    if rescale == "l1":
        before, after = (float(x.abs().double().sum()) for x in (delta, kept))
        if before >= _NO_NORM and after >= _NO_NORM:
            return kept * (before / after)
    return kept
