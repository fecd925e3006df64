"""DARE's first step: drop entries of task vectors and rescale what stays."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from evomerge.merge.kernels.draws import bound
from evomerge.merge.kernels.loops import float_numbers
from evomerge.merge.kernels.trimming import trim, trim_at
from evomerge.merge.method import Site, Vectors
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
    grain=1e-6,
    also=dict.fromkeys(("drop_rate", "weight_mask_rate"), lambda rate: 1 - rate),
)
RESCALE = Choice(
    options=("auto", "inverse_density", "l1", "none"),
    default="auto",
    meaning="how the kept entries make up for the dropped: each divided by its chance to stay, or by their "
    "sum of magnitudes; `auto` is `inverse_density`, and `l1` under mergekit's semantics",
    also={True: "auto", False: "none", "inverse_prob": "inverse_density"},
)
MASK_STRATEGY = Choice(
    options=("random", "magnitude"),
    default="random",
    meaning="what is dropped: entries at random, or the smallest, as MergeLM also offers",
)
_NO_NORM = 1e-7


def draws(density: Sequence[float], strategy: str = "random") -> bool:
    """Return whether what stays of task vectors at these densities is a matter of chance."""
    return strategy == "random" and any(0 < share < 1 for share in density)


@dataclass(frozen=True, kw_only=True)
class Dropping:
    """What is dropped of task vectors, and how what stays makes up for it."""

    density: tuple[float, ...]
    rescale: str
    compat: str
    strategy: str = "random"

    def drop(self, deltas: Tensor, site: Site) -> Tensor:
        """Return `deltas (n, *s)` of which a share `density` of the entries stayed, rescaled."""
        return self._dropped(deltas, site, 0)

    def begin(self, site: Site) -> Vectors | None:
        """Return what drops from consecutive blocks `(n, b)` of task vectors as `drop` does from the whole.

        None if what stays, or how it is rescaled, is known from the whole only.
        """
        partial = any(0 < share < 1 for share in self.density)
        if partial and (self.strategy == "magnitude" or _rescaling(self.rescale, self.compat) == "l1"):
            return None
        return lambda deltas, start: self._dropped(deltas, site, start)

    def loop_numbers(self, site: Site) -> tuple[Tensor, ...] | None:
        """Return what a loop drops by: bounds of draws, chances, and keys `(n, 2)`; None as in `begin`."""
        if self.begin(site) is None or site.keep_masks is not None or not all(self.density):
            return None
        import torch

        rescales = _rescaling(self.rescale, self.compat) != "none"
        bounds = [bound(share) if share < 1 else math.inf for share in self.density]
        over = [share if rescales and share < 1 else 1.0 for share in self.density]
        return *float_numbers(bounds, over), torch.tensor(site.keys(), dtype=torch.int32)

    def _dropped(self, deltas: Tensor, site: Site, start: int) -> Tensor:
        kept = deltas.clone()
        for i, (left, share) in enumerate(zip(kept, self.density, strict=True)):
            if share <= 0:
                left.zero_()
            elif share < 1:
                if self.strategy == "magnitude":
                    left.copy_(_largest(left, share, exactly=self.compat not in ("official", "mergelm")))
                else:
                    left.mul_(site.kept(i, left, share, start))
                make_up(left, deltas[i], share, rescale=self.rescale, compat=self.compat)
        return kept


def _rescaling(rescale: str, compat: str) -> str:
    if rescale == "auto":
        return "l1" if compat == "mergekit" else "inverse_density"
    return rescale


def make_up(kept: Tensor, delta: Tensor, chance: Tensor | float, *, rescale: str, compat: str) -> Tensor:
    """Rescale `kept (*s)`, what stayed of `delta`, and return it; `chance` of each entry was above 0."""
    rescale = _rescaling(rescale, compat)
    if rescale == "inverse_density":  # by a plain number a GPU would multiply, with its inverse
        return kept.div_(kept.new_tensor(chance) if isinstance(chance, float) else chance)
    if rescale == "l1":
        before, after = (float(x.abs().double().sum()) for x in (delta, kept))
        if before >= _NO_NORM and after >= _NO_NORM:
            return kept.mul_(before / after)
    return kept


def _largest(delta: Tensor, share: float, *, exactly: bool) -> Tensor:
    """Return `delta (*s)` without its int(n·(1 − share)) smallest entries.

    Unless `exactly`, all that equal the last of these drop too, as in MergeLM: many in bfloat16.
    """
    size = delta.numel()
    dropped = int(size * round(1 - share, 12))  # 1 − 0.9 is a little less than 0.1
    if dropped == 0:
        return delta
    if exactly:
        return trim(delta, size - dropped)
    return trim_at(delta, float(delta.abs().flatten().kthvalue(dropped).values), 0)
