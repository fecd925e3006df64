"""The frozen values that pass between the stages of a search."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal, TypeAlias

Value: TypeAlias = float | int | str | bool
Params: TypeAlias = Mapping[str, Value]
"""One value per gene, as the sampler and the study see it."""

Split: TypeAlias = Literal["search", "select", "report"]
"""Search items score candidates, select items choose among finalists, report items tell what came of it."""

Backend: TypeAlias = Literal["transformers", "vllm"]
"""What runs a merged model."""

Aggregate: TypeAlias = Literal["mean", "perplexity", "weighted_perplexity", "bits_per_byte", "other"]
"""How lm-eval makes one number of the items' scores: their mean; e to minus their (weighted) mean; minus
their weighted mean in bits. Of any other, differences between two models have no interval."""

Statistic: TypeAlias = Literal["fisher", "gram"]
"""What a method may merge by, measured on a model beforehand: the diagonal of its Fisher information,
shaped as each tensor, or the Gram matrix `(in, in)` of the inputs of each linear layer."""

Measurable: TypeAlias = Literal[Statistic, "influence"]
"""What a statistics file may hold: a statistic, or the block influence of each layer `(layers,)`, which no
method reads but a space may begin with."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """One number read off a model: an lm-eval task, one of its metrics, and which way is better."""

    name: str
    task: str
    metric: str
    filter: str
    higher_is_better: bool
    aggregate: Aggregate = "mean"

    @property
    def arrow(self) -> str:
        """The direction of better, as tables show it."""
        return "↑" if self.higher_is_better else "↓"

    def oriented(self, value: float) -> float:
        """Return `value` turned so that higher is better."""
        return value if self.higher_is_better else -value


@dataclass(frozen=True, kw_only=True)
class ItemScores:
    """What one model scored on each item of one task, for one metric.

    `scores[k]` belongs to the item whose content hash is `items[k]`; `weights[k]` is 1 except for
    perplexities, where the score is a log-likelihood and the weight counts words or bytes. An item whose
    metric only has a meaning over the whole set (BLEU, say) has the score NaN. `margins[k]` says of a
    multiple choice by how much the log-likelihood of the right option exceeds that of the best other one,
    each divided by the option's length where the metric does so.
    """

    task: str
    metric: str
    filter: str
    items: tuple[str, ...]
    scores: tuple[float, ...]
    weights: tuple[float, ...] | None = None
    margins: tuple[float, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Identified:
    """A candidate that was built and not scored yet: what shows whether it is one seen before.

    `digest` is of the merged tensors' bytes, the config and the tokenizer. `fingerprint` are
    log-probabilities at the end of some prompts `(prompts, tokens)`, prompt by prompt; two of them differ by
    up to `noise` where the models do not. Both are comparable on the same `device` only, fingerprints also on
    one `basis` only, which names prompts, tokens and dtype; there is none where there is no fingerprint.
    """

    digest: str
    fingerprint: tuple[tuple[float, ...], ...]
    noise: float
    device: str
    merge_seconds: float
    basis: str = ""


@dataclass(frozen=True, kw_only=True)
class Scored:
    """A candidate that was built and scored: one finite number per measure, and the items behind it.

    `device` names what it was computed on, for whoever wants the same digits again.
    """

    scores: Mapping[str, float]
    items: tuple[ItemScores, ...]
    merge_seconds: float
    score_seconds: float
    device: str

    def __post_init__(self) -> None:
        broken = {name: score for name, score in self.scores.items() if not math.isfinite(score)}
        if broken:
            raise ValueError(f"scores must be finite, found {broken}: make this a Failed")
        object.__setattr__(self, "scores", MappingProxyType(dict(self.scores)))

    def __reduce__(self) -> tuple[object, ...]:
        return _scored, (dict(self.scores), self.items, self.merge_seconds, self.score_seconds, self.device)


def _scored(
    scores: Mapping[str, float], items: tuple[ItemScores, ...], merge: float, score: float, device: str
) -> Scored:
    return Scored(scores=scores, items=items, merge_seconds=merge, score_seconds=score, device=device)


@dataclass(frozen=True, kw_only=True)
class Failed:
    """A candidate that could not be built or scored, and why.

    `ended_workers` counts those that died of it, or were ended as they took too long.
    """

    reason: str
    traceback: str = ""
    seconds: float = 0.0
    ended_workers: int = 0


Evaluation: TypeAlias = Scored | Failed

Outcome: TypeAlias = Scored | Identified | Failed
"""What comes back of a job: some or all scores, who the candidate is, or why there is neither."""
