"""Content digests, so that a recipe names weights and not places."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from evomerge.checkpoints.folder import ADAPTER_CONFIG, Checkpoint

TOKENIZER_FILES = (
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
PROCESSOR_FILES = ("processor_config.json", "preprocessor_config.json", "video_preprocessor_config.json")


def digest(checkpoint: Checkpoint) -> str:
    """Return `blake2b:` and 32 hex digits over the config, the tokenizer and every byte of the weights.

    That of an adapter is over its own files and the digest of its base; of a model that sees, what prepares
    its images is part of it.
    """
    return digests({"": checkpoint})[""]


def digests(
    checkpoints: Mapping[str, Checkpoint], known: Mapping[Path, str] = MappingProxyType({})
) -> dict[str, str]:
    """Return the digest of each; a base of several adapters is read once, one that is `known` never."""
    of_whole = dict(known)

    def of(checkpoint: Checkpoint) -> str:
        path = checkpoint.path
        if (made := checkpoint.adaptation) is not None:
            return _digest([path / ADAPTER_CONFIG, *made.adapter.weight_files], first=of(made.base))
        if path not in of_whole:
            prepared = [path / name for name in PROCESSOR_FILES if (path / name).is_file()]
            files = [path / "config.json", *_tokenizer(path), *prepared, *checkpoint.weight_files]
            of_whole[path] = _digest(files)
        return of_whole[path]

    return {name: of(checkpoint) for name, checkpoint in checkpoints.items()}


def tokenizer_digest(path: Path) -> str:
    """Return `blake2b:` and 32 hex digits over the tokenizer's files in the folder `path`."""
    return _digest(_tokenizer(path))


def file_digest(path: Path) -> str:
    """Return `blake2b:` and 32 hex digits over the file `path`."""
    return _digest([path])


def folder_digest(folder: Path, names: Sequence[str]) -> str:
    """Return `blake2b:` and 32 hex digits over the names and the content of files in a folder."""
    return _digest([folder / name for name in names], first="\n".join(names))


def _tokenizer(path: Path) -> list[Path]:
    return [path / name for name in TOKENIZER_FILES if (path / name).is_file()]


def _digest(files: Sequence[Path], *, first: str = "") -> str:
    """Return the digest of the files' digests, after that of what they stand on."""
    with ThreadPoolExecutor(max_workers=max(1, min(4, len(files)))) as pool:
        parts = list(pool.map(_file_digest, files))
    whole = hashlib.blake2b(b"".join([first.encode(), *parts]), digest_size=16)
    return f"blake2b:{whole.hexdigest()}"


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
