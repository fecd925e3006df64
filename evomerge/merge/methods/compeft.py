"""ComPEFT: compress each task vector to a few signs times one number, then add them up.

Yadav et al. 2023, https://arxiv.org/abs/2311.13171. `mode: ternary` gives the largest entries of a task
vector the magnitude ασ, with σ the standard deviation of all its entries; `stc` (Sattler et al. 2018,
https://arxiv.org/abs/1805.08768) their mean magnitude; `prune` leaves them as they are. By default σ and the
entries kept are those of the whole model, as in the paper. `k_percent`, the authors' word for the density,
is read as they read it: in percent above 1, as a share otherwise.

Under `compat: official` one entry more and every tie at the cut stay, a density of 1 leaves a task vector
uncompressed, and the mean of `stc` is that of the signed entries, which may well be 0.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, ClassVar

from evomerge.merge.kernels.trimming import global_cuts, kept_count, share_out, trim_at
from evomerge.merge.kernels.weighting import LAMBDA, NORMALIZE, TASK_WEIGHT, add_weighted
from evomerge.merge.method import SUMS, BaseUse, Cost, Ignored, MergeMethod, Operand, Site, Stream, View
from evomerge.parameters import Choice, Gene, PerSource
from evomerge.types import Value

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Codes:
    """Per source: where it is cut, how many entries at the cut each tensor keeps, what becomes of them."""

    thresholds: tuple[float, ...]
    spare: Mapping[str, tuple[int, ...]] | None
    """None: all of them."""
    magnitudes: tuple[float, ...] = ()
    """The standard deviation, or the mean of what is kept; nothing where that is left as it is."""


@dataclass(frozen=True, kw_only=True)
class Compeft:
    """The base plus weighted task vectors, each reduced to signs and one magnitude."""

    on: ClassVar[Operand] = "deltas"
    base: ClassVar[BaseUse] = "needed"
    sources: ClassVar[tuple[int, int | None]] = (1, None)
    compats: ClassVar[tuple[str, ...]] = ("evomerge", "official")
    additive: ClassVar[Mapping[str, Value] | None] = None
    cost: ClassVar[Cost] = "ranks"
    ignores: ClassVar[frozenset[Ignored]] = SUMS

    weight: Annotated[PerSource, TASK_WEIGHT]
    density: Annotated[
        PerSource,
        Gene(
            low=0.05,
            high=0.5,
            default=0.2,
            meaning="share of each task vector kept, largest first",
            searched=False,
            least=0.0,
            most=1.0,
            also={"k_percent": lambda percent: percent / 100 if percent > 1 else percent},
        ),
    ]
    alpha: Annotated[
        float,
        Gene(
            low=0.5,
            high=10.0,
            default=1.0,
            meaning="magnitude of what a ternary task vector keeps, in standard deviations of the whole",
            least=0.0,
            whole=True,
        ),
    ]
    lambda_: Annotated[float, LAMBDA]
    normalize: Annotated[bool, NORMALIZE]
    mode: Annotated[
        str,
        Choice(
            options=("ternary", "prune", "stc"),
            default="ternary",
            meaning="what the kept entries become: signs times α standard deviations, "
            "what they are, or signs times their mean magnitude",
        ),
    ]
    scope: Annotated[
        str,
        Choice(
            options=("auto", "tensor", "model"),
            default="auto",
            meaning="whether a density and a standard deviation are those of each tensor or of the whole "
            "model; `auto` is `model`",
        ),
    ]
    compat: str = "evomerge"

    def merge(self, base: Tensor | None, operands: Tensor, site: Site) -> Tensor:
        """Return θ₀ + λ Σ wᵢ v̂ᵢ: `base (*s)` and `operands (n, *s)` to `(*s)`."""
        assert base is not None  # `base` is declared "needed"
        compressed = self.compress(operands, site)
        return add_weighted(base, compressed, self.weight, scale=self.lambda_, normalize=self.normalize)

    def compress(self, deltas: Tensor, site: Site) -> Tensor:
        """Return v̂ `(n, *s)` for the task vectors `deltas (n, *s)`."""
        codes = site.survey
        if self.scope == "tensor":
            here = View(site=site, shape=tuple(deltas.shape[1:]), load=deltas.clone)
            codes = self.survey(lambda: iter([here]))
        kept = self._kept(deltas, site, codes)
        if self.mode == "prune":
            return kept
        factor = self.alpha if self.mode == "ternary" else 1.0
        for i, vector in enumerate(kept):
            if not self._untouched(i):
                kept[i] = vector.sign() * (factor * codes.magnitudes[i])
        return kept

    def survey_key(self) -> Hashable | None:
        return None if self.scope == "tensor" else (self.compat, self.density, self.mode)

    def survey(self, stream: Stream) -> Codes:
        """Find each source's cut and magnitude over all tensors, holding one at a time."""
        size = sum(math.prod(view.shape) for view in stream())
        counts = [self._count(density, size) for density in self.density]
        cuts = global_cuts(lambda: (view.load() for view in stream()), counts)
        spare = None if self.compat == "official" else share_out(stream, cuts, counts)
        codes = Codes(thresholds=tuple(cut.value for cut in cuts), spare=spare)
        if self.mode == "prune":
            return codes
        magnitudes = self._means(stream, codes) if self.mode == "stc" else _deviations(stream)
        return replace(codes, magnitudes=magnitudes)

    def _count(self, density: float, size: int) -> int:
        """Return how many of `size` entries survive (before ties, if they all stay)."""
        return min(size, int(size * density) + 1) if self.compat == "official" else kept_count(density, size)

    def _untouched(self, source: int) -> bool:
        return self.compat == "official" and self.density[source] >= 1

    def _kept(self, deltas: Tensor, site: Site, codes: Codes) -> Tensor:
        """Return `deltas (n, *s)` with the entries that are not kept zero."""
        spare = codes.spare[site.tensor] if codes.spare is not None else [None] * len(deltas)
        kept = deltas.new_empty(deltas.shape)
        for i, (delta, threshold, ties) in enumerate(zip(deltas, codes.thresholds, spare, strict=True)):
            kept[i] = trim_at(delta, threshold, ties)
        return kept

    def _means(self, stream: Stream, codes: Codes) -> tuple[float, ...]:
        """Return the mean magnitude of what each source keeps (official: the mean itself)."""
        sums: list[list[tuple[float, int]]] = [[] for _ in self.density]
        for view in stream():
            for i, vector in enumerate(self._kept(view.load(), view.site, codes)):
                values = vector if self.compat == "official" else vector.abs()
                sums[i].append((float(values.double().sum()), int((vector != 0).sum())))
        return tuple(
            math.fsum(total for total, _ in found) / max(1, sum(count for _, count in found))
            for found in sums
        )


def _deviations(stream: Stream) -> tuple[float, ...]:
    """Return the unbiased standard deviation of each source's task vector; 0 of fewer than two entries.

    Sums are exact, so that the order of the tensors does not count.
    """
    parts = [[_moments(vector) for vector in view.load()] for view in stream()]
    return tuple(_deviation(found) for found in zip(*parts, strict=True))


def _moments(vector: Tensor) -> tuple[int, float, float]:
    """Return how many entries there are, their mean and their variance."""
    if not vector.numel():
        return 0, 0.0, 0.0
    wide = vector.double()
    return wide.numel(), float(wide.mean()), float(wide.var(correction=0))


def _deviation(parts: Sequence[tuple[int, float, float]]) -> float:
    """Return the standard deviation of a vector in parts, given size, mean and variance of each."""
    size = sum(count for count, _, _ in parts)
    if size < 2:
        return 0.0
    mean = math.fsum(count * part for count, part, _ in parts) / size
    squares = math.fsum(count * (spread + (part - mean) ** 2) for count, part, spread in parts)
    return math.sqrt(squares / (size - 1))


METHOD: type[MergeMethod] = Compeft
