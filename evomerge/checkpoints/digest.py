"""Content digests, so that a recipe names weights and not places."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from evomerge.checkpoints.folder import Checkpoint

_TOKENIZER = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "spiece.model",
    "vocab.json",
    "vocab.txt",
    "merges.txt",
    "added_tokens.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
_PROCESSOR = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")


def digest(checkpoint: Checkpoint) -> str:
    """Return `blake2b:` and 32 hex digits over the config, the tokenizer and every byte of the weights.

    Of a model that sees, what prepares its images is part of it.
    """
    path = checkpoint.path
    prepared = [path / name for name in _PROCESSOR if (path / name).is_file()]
    return _digest([path / "config.json", *_tokenizer(path), *prepared, *checkpoint.weight_files])


def tokenizer_digest(path: Path) -> str:
    """Return `blake2b:` and 32 hex digits over the tokenizer's files in the folder `path`."""
    return _digest(_tokenizer(path))


def file_digest(path: Path) -> str:
    """Return `blake2b:` and 32 hex digits over the file `path`."""
    return _digest([path])


def _tokenizer(path: Path) -> list[Path]:
    return [path / name for name in _TOKENIZER if (path / name).is_file()]


def _digest(files: Sequence[Path]) -> str:
    with ThreadPoolExecutor(max_workers=max(1, min(4, len(files)))) as pool:
        parts = list(pool.map(_file_digest, files))
    whole = hashlib.blake2b(b"".join(parts), digest_size=16)
    return f"blake2b:{whole.hexdigest()}"


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
