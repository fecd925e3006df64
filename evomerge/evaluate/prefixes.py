"""What several options share is read once: one row holds a question and, behind it, each of its options.

The options' tokens stand at the positions that follow the question and see it and themselves alone, as in
tree attention (Miao et al. 2023, SpecInfer, https://arxiv.org/abs/2305.09781). Whether a model computes
that is asked of the model itself.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from evomerge.evaluate.likelihoods import Answer, Asked, Pair, Row, answers, pack, plain_rows, token_log_probs

_log = logging.getLogger(__name__)

_SAVES = 0.75
"""Rows of several options must have at most this share of the tokens; masks cost something, too."""

_ROUNDING = 3.0
"""Distances up to so many times that between two ways to batch plain rows are rounding."""

_LEAST = 2.0  # in units of the dtype's precision, where two ways happen to agree
_PADDING = 5


class Questions:
    """Pairs as a model is asked them: plainly, or in rows of several options where it takes those."""

    def __init__(self, pairs: Sequence[Pair], *, longest: int, batch_size: int, device: torch.device) -> None:
        numbered = dict(enumerate(pairs))
        shared = _sharing(numbered, longest)
        alone = {number: pair for number, pair in numbered.items() if number not in shared}
        self._count = len(pairs)
        self._plain = plain_rows(numbered, longest)
        self._size, self._device = batch_size, device
        self._batches = pack(self._plain, batch_size=batch_size, device=device)
        self._trees = pack(_tree_rows(shared), batch_size=batch_size, device=device) if shared else ()
        self._rest = pack(plain_rows(alone, longest), batch_size=batch_size, device=device) if shared else ()
        self._probe = _Probe(_extremes(shared), longest, device) if shared else None
        self._takes: dict[str, bool] = {}

    def answer(self, model: Any, form: str) -> list[Answer]:
        """Return the model's answers in the pairs' order; models of one `form` compute alike."""
        if self._probe is not None and form not in self._takes:
            verdict = self._probe.verdict(model)
            if verdict is None:
                return answers(model, self._batches, self._count)
            self._takes[form] = verdict
        if self._takes.get(form):
            return answers(model, (*self._trees, *self._rest), self._count)
        return answers(model, self._batches, self._count)


class _Probe:
    """A few of the pairs, asked both ways to learn whether a model gives the same answers."""

    def __init__(self, pairs: Mapping[int, Pair], longest: int, device: torch.device) -> None:
        rows = plain_rows(pairs, longest)
        self._plain = pack(rows, batch_size=len(rows), device=device)
        self._single = pack([_widened(row) for row in rows], batch_size=1, device=device)
        self._trees = pack(_tree_rows(pairs), batch_size=len(pairs), device=device)
        self._pairs = len(pairs)

    def verdict(self, model: Any) -> bool | None:
        """Return whether rows of several options are right for the model; None if this one does not tell.

        It tells if its answers differ by more than rounding from those of a model that knows no options.
        """
        plain = self._answers(model, self._plain)
        noise = _distance(plain, self._answers(model, self._single))
        try:
            trees = _distance(plain, self._answers(model, self._trees))
            flat = _distance(plain, self._answers(model, self._trees, flat=True))
        except (ValueError, RuntimeError, TypeError, LookupError, AttributeError) as error:
            _log.debug("options are asked one by one: this model takes no rows of several (%s)", error)
            return False
        rounding = _ROUNDING * max(noise, _LEAST * torch.finfo(model.dtype).eps)
        if not flat > _ROUNDING * rounding:  # NaN is not
            _log.debug("options are asked one by one: this model's answers (%g) do not tell", flat)
            return None
        _log.debug("rows of several options are %g off, %g is rounding", trees, rounding)
        return trees <= rounding

    def _answers(self, model: Any, batches: Sequence[Any], *, flat: bool = False) -> Tensor:
        """Return the log-probabilities of all the pairs' tokens, pair by pair."""
        found: dict[int, Tensor] = {}
        for batch in batches:
            log_probs, _ = token_log_probs(model, batch, flat=flat)
            for numbers, where in batch.sums:
                found |= zip(numbers.tolist(), log_probs[where], strict=True)
        return torch.cat([found[number] for number in sorted(found)])


def _distance(one: Tensor, other: Tensor) -> float:
    return float((one - other).square().mean().sqrt())


def _widened(row: Row) -> Row:
    """Return the row with tokens behind it that nothing asks about."""
    return Row(ids=(*row.ids, *[0] * _PADDING), asked=row.asked)


def _sharing(pairs: Mapping[int, Pair], longest: int) -> dict[int, Pair]:
    """Return the pairs that are better read together: those of one context, longer than a token or two.

    Where a context would be cut to what a model can see, each of its options cuts it elsewhere.
    """
    groups: dict[tuple[int, ...], dict[int, Pair]] = defaultdict(dict)
    for number, pair in pairs.items():
        groups[pair.context][number] = pair
    found: dict[int, Pair] = {}
    for context, group in groups.items():
        apart = sum(len(read) for read in {pair.read for pair in group.values()})
        together = len(context) + sum(len(ids) for ids in _options(group.values()))
        fits = all(len(pair.read) <= longest for pair in group.values())
        if fits and together <= _SAVES * apart:
            found |= group
    return found


def _options(pairs: Any) -> list[tuple[int, ...]]:
    """Return what is read of the different options, each once."""
    return list(dict.fromkeys(pair.continuation[:-1] for pair in pairs if len(pair.continuation) > 1))


def _extremes(pairs: Mapping[int, Pair]) -> dict[int, Pair]:
    """Return the pairs of the longest context and of the shortest."""
    lengths = {pair.context: len(pair.context) for pair in pairs.values()}
    chosen = {max(lengths, key=lambda each: lengths[each]), min(lengths, key=lambda each: lengths[each])}
    return {number: pair for number, pair in pairs.items() if pair.context in chosen}


def _tree_rows(pairs: Mapping[int, Pair]) -> list[Row]:
    """Return a row for each context, the longest first."""
    groups: dict[tuple[int, ...], dict[int, Pair]] = defaultdict(dict)
    for number, pair in pairs.items():
        groups[pair.context][number] = pair
    rows = [_tree_row(context, group) for context, group in groups.items()]
    return sorted(rows, key=lambda row: (-len(row.ids), row.ids))


def _tree_row(context: tuple[int, ...], group: Mapping[int, Pair]) -> Row:
    ids, positions, branches = list(context), list(range(len(context))), [0] * len(context)
    starts: dict[tuple[int, ...], int] = {}
    for branch, option in enumerate(_options(group.values()), start=1):
        starts[option] = len(ids)
        ids += option
        positions += range(len(context), len(context) + len(option))
        branches += [branch] * len(option)
    asked = []
    for number, pair in group.items():
        option = pair.continuation[:-1]
        start = starts.get(option, 0)
        columns = (len(context) - 1, *range(start, start + len(option)))
        asked.append(Asked(number=number, columns=columns, tokens=pair.continuation))
    return Row(ids=tuple(ids), asked=tuple(asked), positions=tuple(positions), branches=tuple(branches))
