"""The words of a merged model: which tokenizer it has, and where each model keeps the rows of its tokens.

Tokens are matched by their strings, and the same map serves the embedding and the head. Without a word on
tokenizers the models share one, and only the padding behind its last token may differ.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from evomerge.checkpoints.folder import Checkpoint, read_json
from evomerge.checkpoints.rows import Index, RowMap, row_maps
from evomerge.checkpoints.tokenizer import TokenizerFiles, token_table, union
from evomerge.errors import RecipeError, unknown

BASE, UNION = "base", "union"
"""What `tokenizer:` may say besides a model's name."""

_SPECIAL = ("bos_token_id", "eos_token_id", "pad_token_id")
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class Vocabulary:
    """A merged model's tokenizer and rows.

    Row `r` of `home` stays row `r`, whether a token has it or not, but for the rows of `added` tokens, which
    are padding there. `tokens` are, by model, its rows of tokens and theirs in the result; None: each
    model's row `r` is row `r`. What a model lacks is taken from `base` first. `special` are the ids of
    special tokens, where they are not the template's.
    """

    tokenizer: TokenizerFiles
    length: int
    home: str
    base: str | None
    tokens: Mapping[str, tuple[Index, Index]] | None
    added: Index
    special: Mapping[str, Any] | None

    def row_map(self, model: str, rows: tuple[tuple[str, int], ...]) -> RowMap | None:
        """Return how `model`'s tensor is aligned, where each model's has so many `rows`; None: not at all."""
        rows_of = dict(rows)
        found = _row_maps(self, rows)[model]
        return None if found.keeps(rows_of[model]) else found

    def own_rows(self, model: str, rows: int) -> Index:
        """Return for each row of the result the model's own, or -1."""
        own = np.full(self.length, -1, dtype=np.int64)
        if self.tokens is None or model == self.home:
            kept = min(rows, self.length)
            own[:kept] = np.arange(kept)
            own[self.added] = -1
        if self.tokens is not None:
            theirs, ours = self.tokens[model]
            there = (theirs < rows) & (ours < self.length)
            own[ours[there]] = theirs[there]
        return own


@functools.lru_cache(maxsize=8)
def _row_maps(vocabulary: Vocabulary, rows: tuple[tuple[str, int], ...]) -> Mapping[str, RowMap]:
    own = {model: vocabulary.own_rows(model, count) for model, count in rows}
    return row_maps(own, vocabulary.base if vocabulary.base in own else None)


def merged_vocabulary(
    tokenizer: str | None, *, template: str, base: str | None, models: Mapping[str, Checkpoint]
) -> Vocabulary | None:
    """Return the vocabulary of a merge of `models`, the same object for the same folders; None: all alike.

    Raises `RecipeError` if `tokenizer` is none of `base`, `union` and the models, `CheckpointError` if
    the tokenizers cannot be matched.
    """
    rows = {name: _rows(model) for name, model in models.items()}
    if tokenizer is None:
        if len(set(rows.values())) == 1:
            return None
    elif tokenizer not in (BASE, UNION, *models):
        known = dict.fromkeys((BASE, UNION, *models))
        raise RecipeError(
            f"`tokenizer` is `{BASE}`, `{UNION}` or a model that is merged: "
            f"{unknown('tokenizer', tokenizer, known)}"
        )
    folders = tuple((name, model.home, _stamp(model.home), rows[name]) for name, model in models.items())
    return _built(tokenizer, template, base, folders)


def _rows(model: Checkpoint) -> int:
    return model.specs[model.structure.embedding].shape[0]


def _stamp(folder: Path) -> tuple[int, ...]:
    """Return what changes when a model's tokenizer is written again."""
    stats = [
        (folder / name).stat() for name in ("tokenizer.json", "config.json") if (folder / name).is_file()
    ]
    return tuple(number for stat in stats for number in (stat.st_mtime_ns, stat.st_size))


_Folders = tuple[tuple[str, Path, tuple[int, ...], int], ...]


@functools.lru_cache(maxsize=8)
def _built(tokenizer: str | None, template: str, base: str | None, models: _Folders) -> Vocabulary:
    folders = {name: path for name, path, _, _ in models}
    rows = {name: count for name, *_, count in models}
    home = template if tokenizer in (None, BASE, UNION) else tokenizer
    assert home is not None
    ordered = {home: folders[home], **folders}
    tokens, added = None, np.zeros(0, dtype=np.int64)
    files, length = TokenizerFiles(folder=folders[home]), rows[home]
    if tokenizer == UNION:
        files, table = union(ordered)
        length = max(length, 1 + max(table.values(), default=-1))
        tokens = _tokens(table, ordered)
        own = token_table(home, folders[home])
        added = np.array([row for token, row in table.items() if token not in own], dtype=np.int64)
    elif tokenizer is not None:
        tokens = _tokens(token_table(home, folders[home]), ordered)
    return Vocabulary(
        tokenizer=files,
        length=length,
        home=home,
        base=template if tokenizer in (None, BASE) else base,
        tokens=tokens,
        added=added,
        special=None if home == template else special_ids(_config(folders[home])),
    )


def _tokens(table: Mapping[str, int], folders: Mapping[str, Path]) -> dict[str, tuple[Index, Index]]:
    """Return for each model its ids of the tokens in `table`, and those of the table."""
    found = {}
    for name, folder in folders.items():
        own = token_table(name, folder)
        shared = [token for token in table if token in own]
        if 2 * len(shared) < len(table):
            _log.warning("`%s` knows %d of the merged model's %d tokens", name, len(shared), len(table))
        pairs = np.array([(own[token], table[token]) for token in shared], dtype=np.int64).reshape(-1, 2)
        found[name] = (pairs[:, 0], pairs[:, 1])
    return found


def _config(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(folder / "config.json")
    return content


def special_ids(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the ids of special tokens that a config states."""
    return {key: config[key] for key in _SPECIAL if config.get(key) is not None}


def with_special(config: Mapping[str, Any], special: Mapping[str, Any]) -> dict[str, Any]:
    """Return the config with these ids of special tokens and no others."""
    return {**{key: value for key, value in config.items() if key not in _SPECIAL}, **special}
