"""MagPrune, DELLA's first step: drop entries at random, the smaller the likelier, and rescale what stays.

Deep et al. 2024, https://arxiv.org/abs/2406.11617. Their window is 2ε here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from evomerge.errors import MergeError
from evomerge.merge.kernels.dropping import make_up
from evomerge.merge.kernels.ranking import ranks, rows_of
from evomerge.merge.method import Site
from evomerge.parameters import Choice, Gene

if TYPE_CHECKING:
    from torch import Tensor

_BY_SHARE = -1.0

MEAN_CHANCE = Gene(
    low=0.2,
    high=0.8,
    default=0.5,
    meaning="mean chance of an entry to stay",
    least=0.0,
    most=1.0,
    grain=1e-6,
    also={"drop_rate": lambda rate: 1 - rate},
)
EPSILON_SHARE = Gene(
    low=0.0,
    high=0.95,
    default=0.3,
    meaning="how far chances spread around the density, as a share (below 1) of the room there is, "
    "min(density, 1 − density)",
    least=0.0,
    most=1.0,
)
EPSILON = Gene(
    low=0.0,
    high=0.19,
    default=_BY_SHARE,
    meaning="how far chances spread around the density; where it is given, `epsilon_share` has no say "
    "(−1: not given)",
    searched=False,
    least=_BY_SHARE,
    also={"window_size": lambda width: width / 2},
    under={"mergekit": 0.15, "official": 0.07},
)
RANK_SCOPE = Choice(
    options=("row", "layer", "norank"),
    default="row",
    meaning="what decides on chances: ranks within a row, ranks within the tensor, "
    "or where between the smallest and the largest of its row a magnitude lies",
    also={"tensor": "layer"},
)


def half_widths(
    density: tuple[float, ...], epsilon: tuple[float, ...], epsilon_share: tuple[float, ...]
) -> tuple[float, ...]:
    """Return ε `(n,)`, how far the chances to stay of each task vector spread around its density.

    Raises `MergeError` if a chance would not lie strictly between 0 and 1.
    """
    return tuple(_half_width(*each) for each in zip(density, epsilon, epsilon_share, strict=True))


def _half_width(density: float, epsilon: float, share: float) -> float:
    room = min(density, 1 - density)
    if room <= 0:
        return 0.0  # nothing or everything stays
    half = share * room if epsilon == _BY_SHARE else epsilon
    if half < 0 or density - half <= 0 or density + half >= 1:
        raise MergeError(
            f"`epsilon` must be at least 0 and below {room:g} at a density of {density:g}, so that every "
            f"chance to stay lies between 0 and 1, found {half:g}; change one of them, or give an "
            "`epsilon_share` below 1 instead"
        )
    return half


def keep_chance(delta: Tensor, density: float, epsilon: float, *, rank_scope: str = "row") -> Tensor:
    """Return p `(*s)`, the chance of each entry of `delta (*s)` to stay: ρ − ε (smallest) to ρ + ε (largest).

    p = (ρ − ε) + 2ε·r/(m − 1) for the rank r = 0 … m − 1 of |δ| in a row of m, slices along the last dim;
    rows of one entry, where the references divide by zero, get ρ.
    """
    magnitude = delta.abs()
    rows = magnitude.reshape(1, -1) if rank_scope == "layer" else rows_of(magnitude)  # (r, m)
    width = rows.shape[1]
    if width <= 1:
        return magnitude.fill_(density)
    place = _between(rows) if rank_scope == "norank" else ranks(rows).to(rows) / (width - 1)  # in [0, 1]
    return place.mul_(2 * epsilon).add_(density - epsilon).reshape(delta.shape)


def _between(rows: Tensor) -> Tensor:
    """Return where each entry of `rows (r, m)` lies between the least (0) and the greatest (1) of its row."""
    least, greatest = rows.amin(1, keepdim=True), rows.amax(1, keepdim=True)
    return (rows - least) / (greatest - least + 1e-7)


def magprune(
    deltas: Tensor,
    density: tuple[float, ...],
    epsilon: tuple[float, ...],
    site: Site,
    *,
    rank_scope: str = "row",
    rescale: str = "auto",
    compat: str = "evomerge",
) -> Tensor:
    """Return `deltas (n, *s)` of which entries stayed by their chance, rescaled."""
    pruned = deltas.new_zeros(deltas.shape)
    for i, (delta, share, half) in enumerate(zip(deltas, density, epsilon, strict=True)):
        if share >= 1:
            pruned[i] = delta
        elif share > 0:
            chance = keep_chance(delta, share, half, rank_scope=rank_scope)
            kept = delta * site.uniform(i, delta).lt(chance)
            pruned[i] = make_up(kept, delta, chance, rescale=rescale, compat=compat)
    return pruned
