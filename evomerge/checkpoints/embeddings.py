"""Embeddings of models with different vocabularies, as tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from evomerge.checkpoints.rows import RowMap, row_maps
from evomerge.errors import MergeError


def gather(rows: RowMap, read: Callable[[int, Tensor], Tensor]) -> Tensor:
    """Return the aligned tensor `(length, *s)`; `read(k, index)` gives rows of the tensor of pick `k`.

    Holds the result and one pick at a time.
    """
    result = None
    for k, pick in enumerate(rows.picks):
        part = read(k, torch.from_numpy(pick.source))
        if result is None:
            result = part.new_zeros((rows.length, *part.shape[1:]))
        result.index_add_(0, torch.from_numpy(pick.target).to(part.device), part)
    assert result is not None  # the first pick is always there
    if len(rows.averaged):
        where = torch.from_numpy(rows.averaged).to(result.device)
        owners = torch.from_numpy(rows.owners).to(result).reshape(-1, *(1 for _ in result.shape[1:]))
        result[where] = result[where] / owners
    return result


def align_embeddings(
    out_vocab: Sequence[str],
    vocabs: Sequence[Mapping[str, int]],
    embeddings: Sequence[Tensor],
    *,
    base_index: int | None = None,
    pad_to_multiple_of: int | None = None,
) -> list[Tensor]:
    """Return each model's embedding `(rows, d)` with its rows in the order of `out_vocab`.

    `vocabs` give each model's row of a token; a row beyond the embedding counts as none. A token that a
    model lacks has the row of the model `base_index` if that has it, else the mean over the models that
    do, else zeros. With `pad_to_multiple_of`, rows are appended until it divides their number; each is
    the mean of the aligned rows before them. These are mergekit's rules (a6e4028), computed in float32.

    Raises `MergeError` where the embeddings differ in width.
    """
    widths = sorted({tuple(embedding.shape[1:]) for embedding in embeddings})
    if len(widths) > 1:
        raise MergeError(f"embeddings can be aligned by token only if they are as wide, found {widths}")
    own = {}
    for i, (vocab, embedding) in enumerate(zip(vocabs, embeddings, strict=True)):
        rows = np.array([vocab.get(token, -1) for token in out_vocab], dtype=np.int64)
        own[str(i)] = np.where(rows < len(embedding), rows, -1)
    maps = row_maps(own, None if base_index is None else str(base_index))
    missing = -len(out_vocab) % (pad_to_multiple_of or 1)
    return [_aligned(maps[str(i)], i, embeddings, missing) for i in range(len(embeddings))]


def _aligned(rows: RowMap, model: int, embeddings: Sequence[Tensor], missing: int) -> Tensor:
    def read(k: int, index: Tensor) -> Tensor:
        return embeddings[int(rows.picks[k].model)].index_select(0, index).float()

    result = gather(rows, read)
    if missing:
        result = torch.cat([result, result.mean(0, keepdim=True).expand(missing, *result.shape[1:])])
    return result.to(embeddings[model].dtype)


def common_submatrix(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Return the matrices, each cut to the rows and columns that all of them have.

    What mergekit does, where nothing is said of tokenizers, with the embedding and the head of the models
    of `linear`, `slerp` and their like: the rows beyond the shortest are lost, and row `i` of one model is
    taken for row `i` of every other.
    """
    shape = tuple(min(sizes) for sizes in zip(*(tensor.shape for tensor in tensors), strict=True))
    return [tensor[tuple(slice(size) for size in shape)] for tensor in tensors]
