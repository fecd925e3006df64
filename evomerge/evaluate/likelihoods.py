"""Log-likelihoods of continuations: batches that are packed once, and what each next model makes of them.

Rows, their order, their padding and the batches they come in are those of `HFLM._loglikelihood_tokens` of
lm_eval 0.4.13, which packs anew for every model and picks each row apart in Python; the digits are the same.
Where two requests part one text at different places, lm-eval reads the shorter continuation off the wrong
tokens, and this does not. `prefixes.py` packs differently where options share a question.
"""

from __future__ import annotations

import functools
import inspect
from collections import defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor

Tokens: TypeAlias = tuple[int, ...]
Answer: TypeAlias = tuple[float, bool]
"""A continuation's log-likelihood, and whether it is what the model itself would say, token by token."""

_PLACES = 512
"""So many distributions over the vocabulary at a time, in float32: of 128,000 tokens 0.26 GB."""

_SMALL = 1 << 20
"""Logits that stay in the cache: to leave some out would save nothing, and lm-eval takes them all."""


@dataclass(frozen=True, kw_only=True)
class Pair:
    """What is read, and how it might go on; neither is empty."""

    context: Tokens
    continuation: Tokens

    @property
    def read(self) -> Tokens:
        """What a model reads: the last token need not be."""
        return self.context + self.continuation[:-1]

    def cut(self, longest: int) -> Tokens:
        """Return the last `longest` tokens of what a model reads, as lm-eval leaves the first ones out."""
        return self.read[-longest:]


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One of the pairs, by number: its tokens, and after which column of the row each is expected."""

    number: int
    columns: tuple[int, ...]
    tokens: Tokens


@dataclass(frozen=True, kw_only=True)
class Row:
    """What a model reads at once, and what it is asked about that.

    A row of several options says of each token at which position it stands, and to which option it belongs
    (0: the context, which all of them see).
    """

    ids: Tokens
    asked: tuple[Asked, ...]
    positions: tuple[int, ...] = ()
    branches: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Part:
    """Some distributions `(p,)` of a batch, and the tokens `(n,)` whose probabilities are wanted of them."""

    rows: Tensor
    columns: Tensor
    among_kept: Tensor
    places: Tensor  # (n,) which of the distributions
    tokens: Tensor


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Rows as tensors: `ids (rows, width)`, and where in the logits the answers are.

    Only the columns `kept (k,)` of the logits are needed. `sums` hold, for pairs of one length, their
    numbers `(m,)` and where their tokens are among those of all parts `(m, length)`.
    """

    ids: Tensor
    kept: Tensor
    parts: tuple[Part, ...]
    sums: tuple[tuple[Tensor, Tensor], ...]
    positions: Tensor | None
    branches: Tensor | None


def plain_rows(pairs: Mapping[int, Pair], longest: int) -> list[Row]:
    """Return rows in lm-eval's order; pairs of which a model reads the same share one."""
    groups: dict[Tokens, list[int]] = defaultdict(list)
    for number, pair in pairs.items():
        groups[pair.read].append(number)
    leaders = [max(group, key=lambda number: len(pairs[number].continuation)) for group in groups.values()]
    leaders.sort(key=lambda number: _order(pairs[number]))
    return [_plain_row(groups[pairs[leader].read], pairs, longest) for leader in leaders]


def _order(pair: Pair) -> tuple[int, Tokens]:
    whole = pair.context + pair.continuation
    return -len(whole), whole


def _plain_row(numbers: Sequence[int], pairs: Mapping[int, Pair], longest: int) -> Row:
    ids = pairs[numbers[0]].cut(longest)
    asked = []
    for number in numbers:
        tokens = pairs[number].continuation
        columns = tuple(range(len(ids) - len(tokens), len(ids)))
        asked.append(Asked(number=number, columns=columns, tokens=tokens))
    return Row(ids=ids, asked=tuple(asked))


def pack(rows: Sequence[Row], *, batch_size: int, device: torch.device) -> tuple[Batch, ...]:
    """Return the rows in batches, in their order, on a device."""
    starts = range(0, len(rows), batch_size)
    return tuple(_batch(rows[start : start + batch_size], device) for start in starts)


def _batch(rows: Sequence[Row], device: torch.device) -> Batch:
    width = max(len(row.ids) for row in rows)
    wanted = [
        (i, column, asked.number, place, token)
        for i, row in enumerate(rows)
        for asked in row.asked
        for place, (column, token) in enumerate(zip(asked.columns, asked.tokens, strict=True))
    ]
    order = sorted(range(len(wanted)), key=lambda k: wanted[k][:2])
    kept = sorted({column for _, column, *_ in wanted})
    branching = bool(rows[0].branches)
    return Batch(
        ids=_padded([row.ids for row in rows], width, device),
        kept=torch.tensor(kept, device=device),
        parts=tuple(_parts([wanted[k] for k in order], kept, device)),
        sums=_sums([wanted[k] for k in order], device),
        positions=_padded([row.positions for row in rows], width, device) if branching else None,
        branches=_padded([row.branches for row in rows], width, device) if branching else None,
    )


def _padded(rows: Sequence[Tokens], width: int, device: torch.device) -> Tensor:
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=device)


_Wanted: TypeAlias = tuple[int, int, int, int, int]
"""A row, a column of it, a pair's number, which of its tokens, and that token."""


def _parts(wanted: Sequence[_Wanted], kept: Sequence[int], device: torch.device) -> Iterator[Part]:
    """Yield what is wanted, which is sorted, by runs of so many distributions."""
    at = {column: k for k, column in enumerate(kept)}
    runs: list[dict[tuple[int, int], list[int]]] = [{}]
    for row, column, _, _, token in wanted:
        if (row, column) not in runs[-1] and len(runs[-1]) == _PLACES:
            runs.append({})
        runs[-1].setdefault((row, column), []).append(token)
    for run in runs:
        yield Part(
            rows=torch.tensor([row for row, _ in run], device=device),
            columns=torch.tensor([column for _, column in run], device=device),
            among_kept=torch.tensor([at[column] for _, column in run], device=device),
            places=torch.tensor([k for k, tokens in enumerate(run.values()) for _ in tokens], device=device),
            tokens=torch.tensor([token for tokens in run.values() for token in tokens], device=device),
        )


def _sums(wanted: Sequence[_Wanted], device: torch.device) -> tuple[tuple[Tensor, Tensor], ...]:
    of_pair: dict[int, dict[int, int]] = defaultdict(dict)
    for k, (_, _, number, place, _) in enumerate(wanted):
        of_pair[number][place] = k
    by_length: dict[int, list[int]] = defaultdict(list)
    for number, places in of_pair.items():
        by_length[len(places)].append(number)
    return tuple(
        (
            torch.tensor(numbers, device=device),
            torch.tensor([[of_pair[n][place] for place in range(length)] for n in numbers], device=device),
        )
        for length, numbers in by_length.items()
    )


@torch.inference_mode()
def answers(model: Any, batches: Sequence[Batch], count: int) -> list[Answer]:
    """Return what `model` answers to `count` pairs, by their numbers."""
    likelihoods = torch.zeros(count, device=model.device)
    greedy = torch.zeros(count, dtype=torch.bool, device=model.device)
    for batch in batches:
        found, expected = token_log_probs(model, batch)
        for numbers, where in batch.sums:
            likelihoods[numbers] = found[where].sum(-1)
            greedy[numbers] = expected[where].all(-1)
    return list(zip(likelihoods.tolist(), greedy.tolist(), strict=True))


@torch.inference_mode()
def token_log_probs(model: Any, batch: Batch, *, flat: bool = False) -> tuple[Tensor, Tensor]:
    """Return the log-probability `(n,)` of each token that is asked for, and whether it is the likeliest.

    `flat` leaves out what tells a row's options apart.
    """
    logits = _logits(model, batch, flat=flat)
    whole = logits.shape[1] == batch.ids.shape[1]
    found, expected = [], []
    for part in batch.parts:
        columns = part.columns if whole else part.among_kept
        log_probs = logits[part.rows, columns].log_softmax(-1, dtype=torch.float32)
        found.append(log_probs[part.places, part.tokens])
        expected.append(log_probs.argmax(-1)[part.places] == part.tokens)
    return torch.cat(found), torch.cat(expected)


def _logits(model: Any, batch: Batch, *, flat: bool) -> Tensor:
    """Return `(rows, width, vocabulary)`, or of the columns that are kept where that saves something."""
    more: dict[str, Tensor] = {}
    if batch.branches is not None and batch.positions is not None and not flat:
        more["attention_mask"] = tree_mask(batch.branches, model.dtype)
        more["position_ids"] = batch.positions
    large = batch.ids.numel() * model.config.get_text_config().vocab_size > _SMALL
    fewer = len(batch.kept) < batch.ids.shape[1]
    if large and fewer and _takes(type(model).forward, "logits_to_keep"):
        more["logits_to_keep"] = batch.kept
    logits: Tensor = model(batch.ids, **more).logits
    return logits


def tree_mask(branches: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what attention `(rows, 1, width, width)` adds: tokens see their own option and the context."""
    same = branches[:, :, None] == branches[:, None, :]
    seen = (same | (branches[:, None, :] == 0)).tril()
    hidden = torch.full(seen.shape, torch.finfo(dtype).min, dtype=dtype, device=branches.device)
    return hidden.masked_fill(seen, 0.0)[:, None]


@functools.cache
def _takes(forward: Hashable, argument: str) -> bool:
    assert callable(forward)
    return argument in inspect.signature(forward).parameters
