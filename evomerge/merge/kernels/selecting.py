"""An order statistic that is asked for once: a sample says about where it lies, one pass over all finds it.

To count all magnitudes first, as `ladder.py` does, pays only where it is asked for again and again.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from evomerge.merge.kernels.ladder import Magnitudes
from evomerge.merge.kernels.trimming import Cut

if TYPE_CHECKING:
    from torch import Tensor

SAMPLE = 1 << 18
"""Entries of a sample: then some hundredth of all lies where the statistic may be."""
_SPREAD = 5.0
"""Standard errors of a sample's order statistics that are looked through, in both directions."""


def cut_once(
    size: int, count: int, magnitudes: Magnitudes, sample: Tensor, *, every_tie: bool = False
) -> Cut | None:
    """Return the cut above which `count` of `size` entries stay, 0 < count < size; None if it was not found.

    `sample (m,)` holds some of the magnitudes. It does not matter which, but for the time that it takes and
    for whether the cut is found; with `every_tie` all stay that equal it.
    """
    import torch

    low, high = _about(sample, count / size)
    above, equal, inside = 0, 0, [sample[:0]]
    for part in magnitudes():
        flat = part.reshape(-1)
        above += int((flat > high).sum())
        if low == high:  # ties: to count them is enough
            equal += int((flat == low).sum())
        else:
            inside.append(flat[flat.ge(low).logical_and_(flat.le(high)).nonzero().flatten()])
    wanted = count - above
    if low == high:
        value, tied = low, equal
    elif 0 < wanted <= len(entries := torch.cat(inside)):
        value = float(entries.kthvalue(len(entries) - wanted + 1).values)
        wanted, tied = wanted - int((entries > value).sum()), int((entries == value).sum())
    else:
        return None
    if not 0 < wanted <= tied:
        return None
    return Cut(value=value, ties=None if every_tie or wanted == tied else wanted)


def _about(sample: Tensor, share: float) -> tuple[float, float]:
    """Return two magnitudes between which that lies which a share of all exceeds, very likely."""
    ordered = sample.sort(descending=True).values
    middle = share * len(ordered)
    off = _SPREAD * math.sqrt(middle * (1 - share)) + 1
    first, last = math.floor(middle - off), math.ceil(middle + off)
    high = float(ordered[first]) if first >= 0 else math.inf
    low = float(ordered[last]) if last < len(ordered) else 0.0
    return low, high
