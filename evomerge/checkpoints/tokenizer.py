"""The tokenizer of a merged model: the files of one model, or a union that is made here.

A union is the first model's tokenizer with the other models' tokens after its own. Format of
`tokenizer.json`: https://github.com/huggingface/tokenizers.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.checkpoints.compatible import vocabulary
from evomerge.checkpoints.digest import TOKENIZER_FILES, tokenizer_digest
from evomerge.checkpoints.folder import read_json
from evomerge.errors import CheckpointError

_log = logging.getLogger(__name__)

CARRIED = (*TOKENIZER_FILES, "chat_template.json")
"""The files that go with a tokenizer."""

_JSON = "tokenizer.json"
_REPEATING = ("tokenizer.model", "spiece.model", "vocab.json", "vocab.txt", "merges.txt", "added_tokens.json")
"""Files that say what `tokenizer.json` says; beside a union they would say something else."""

_WHOLE_WORDS = ("WordLevel", "WordPiece")
"""Models of words, which use a token as soon as they know it; others need merges or scores for it."""

_PLAIN = {"single_word": False, "lstrip": False, "rstrip": False, "special": False}


@dataclass(frozen=True, kw_only=True)
class TokenizerFiles:
    """A tokenizer: the files in `folder`, with `union`, if there is one, as its tokenizer.json."""

    folder: Path
    union: str | None = None

    def write(self, target: Path) -> None:
        """Put the tokenizer's files into `target`."""
        for name in CARRIED:
            source = self.folder / name
            if source.is_file() and (self.union is None or name not in (_JSON, *_REPEATING)):
                shutil.copyfile(source, target / name)
        if self.union is not None:
            (target / _JSON).write_text(self.union, encoding="utf-8")

    @contextmanager
    def placed(self) -> Iterator[Path]:
        """Give a folder that holds the tokenizer: its own, or one that is gone afterwards."""
        if self.union is None:
            yield self.folder
            return
        with tempfile.TemporaryDirectory(prefix="evomerge-tokenizer-") as place:
            self.write(Path(place))
            shutil.copyfile(self.folder / "config.json", Path(place) / "config.json")
            yield Path(place)


def words_digest(tokenizer: TokenizerFiles) -> str:
    """Return hex digits that two tokenizers share exactly when their files hold the same."""
    own = hashlib.blake2b((tokenizer.union or "").encode(), digest_size=16).hexdigest()
    return f"{tokenizer_digest(tokenizer.folder)} {own}"


def token_table(name: str, folder: Path) -> Mapping[str, int]:
    """Return the id of each token. Raises `CheckpointError` if there is no tokenizer.json to read it from."""
    if not (folder / _JSON).is_file():
        raise CheckpointError(
            f"the tokens of `{name}` cannot be matched: {folder} has no {_JSON}; save its tokenizer again "
            "with `AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER)`"
        )
    return vocabulary(folder)


def union(folders: Mapping[str, Path]) -> tuple[TokenizerFiles, Mapping[str, int]]:
    """Return the union of the models' tokenizers and the id of each token: the first's, then new ones.

    New tokens follow in the order of the models and of their ids there. Raises `CheckpointError` where
    two models spell a space differently, so that the same token would never be known again.
    """
    tables = {name: token_table(name, folder) for name, folder in folders.items()}
    contents = {name: _content(folder) for name, folder in folders.items()}
    _check_spelling(contents)
    first, *others = folders
    content, table = contents[first], dict(tables[first])
    new: dict[str, Any] = {}  # with what their model says of them, where it says something
    for name in others:
        declared = {entry["content"]: entry for entry in contents[name].get("added_tokens", [])}
        tokens = sorted(tables[name], key=tables[name].__getitem__)
        new |= {token: declared.get(token) for token in tokens if token not in table and token not in new}
    table |= {token: i for i, token in enumerate(new, start=max(table.values(), default=-1) + 1)}
    for token, entry in new.items():
        _add(content, token, table[token], entry)
    if new and content["model"].get("type") not in _WHOLE_WORDS:
        _log.warning(
            "`tokenizer: union` keeps the merges of `%s` only: the %d tokens it adds match as whole strings, "
            "so text may be cut into other tokens than the models have learnt", first, len(new),
        )  # fmt: skip
    text = json.dumps(content, ensure_ascii=False)
    _check_ids(text, {token: table[token] for token in new})
    return TokenizerFiles(folder=folders[first], union=text), table


def _content(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = read_json(folder / _JSON)
    return content


def _add(content: dict[str, Any], token: str, number: int, declared: Mapping[str, Any] | None) -> None:
    """Add a token to the content of a tokenizer.json."""
    model = content["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"][token] = number
    if declared is not None or model.get("type") not in _WHOLE_WORDS:
        # normalised ones are sought last, so that they cannot cut the tokens a tokenizer was given itself;
        # a normaliser that writes `▁` would change what is sought
        normalised = "▁" not in json.dumps(content.get("normalizer"), ensure_ascii=False)
        entry = {**_PLAIN, "normalized": normalised, **(declared or {}), "id": number, "content": token}
        content["added_tokens"] = [*content.get("added_tokens", []), entry]


def _check_spelling(contents: Mapping[str, dict[str, Any]]) -> None:
    spellings = {name: _spelling(content) for name, content in contents.items()}
    stated = {spelling: name for name, spelling in spellings.items() if spelling is not None}
    if len(stated) > 1:
        (one, first), (other, second) = stated.items()
        raise CheckpointError(
            f"`tokenizer: union` of `{first}` and `{second}` is impossible: {one} and {other} vocabularies "
            "spell the same text differently, so no word would be known again; use `tokenizer: base` or a "
            "model's name"
        )


def _spelling(content: Mapping[str, Any]) -> str | None:
    """Return how a tokenizer spells what is not a plain letter, or None if it has no way of its own."""
    steps = [content.get(step) for step in ("normalizer", "pre_tokenizer", "decoder")]
    text = json.dumps(steps, ensure_ascii=False)
    if '"ByteLevel"' in text:
        return "byte-level (`Ġ`)"
    return "SentencePiece (`▁`)" if "▁" in text else None


def _check_ids(text: str, wanted: Mapping[str, int]) -> None:
    """Hold the tokenizer to the ids its rows will have: the library numbers added tokens itself."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(text)
    for token, number in wanted.items():
        if (found := tokenizer.token_to_id(token)) != number:
            raise CheckpointError(
                f"`tokenizer: union` is impossible: `{token}` would have the id {found}, not {number}, as "
                "the first tokenizer's ids have gaps; use `tokenizer: base` or a model's name"
            )
