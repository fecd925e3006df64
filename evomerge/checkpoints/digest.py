"""Content digests, so that a recipe names weights and not places."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import MappingProxyType

from evomerge.checkpoints import seen
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
    content = _read(file for each in checkpoints.values() for file in _files(each, known))

    def of(checkpoint: Checkpoint) -> str:
        if checkpoint.path in known:
            return known[checkpoint.path]
        first = of(checkpoint.adaptation.base) if checkpoint.adaptation else ""
        return _whole([content[file] for file in _own_files(checkpoint)], first=first)

    return {name: of(checkpoint) for name, checkpoint in checkpoints.items()}


def _files(checkpoint: Checkpoint, known: Mapping[Path, str]) -> Iterator[Path]:
    """Yield the files to be read, those of an adapter's base included."""
    if checkpoint.path not in known:
        yield from _own_files(checkpoint)
        if checkpoint.adaptation is not None:
            yield from _files(checkpoint.adaptation.base, known)


def _own_files(checkpoint: Checkpoint) -> list[Path]:
    path = checkpoint.path
    if checkpoint.adaptation is not None:
        return [path / ADAPTER_CONFIG, *checkpoint.adaptation.adapter.weight_files]
    prepared = [path / name for name in PROCESSOR_FILES if (path / name).is_file()]
    return [path / "config.json", *_tokenizer(path), *prepared, *checkpoint.weight_files]


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
    content = _read(files)
    return _whole([content[file] for file in files], first=first)


def _whole(parts: Sequence[bytes], *, first: str) -> str:
    """Return the digest of the files' digests, after that of what they stand on."""
    whole = hashlib.blake2b(b"".join([first.encode(), *parts]), digest_size=16)
    return f"blake2b:{whole.hexdigest()}"


def _read(files: Iterable[Path]) -> dict[Path, bytes]:
    """Return the digest of each file, as many read at a time as there are processors."""
    each_once = list(dict.fromkeys(files))
    with ThreadPoolExecutor(max_workers=min(16, os.cpu_count() or 1)) as pool:
        return dict(zip(each_once, pool.map(_file_digest, each_once), strict=True))


def _file_digest(path: Path) -> bytes:
    def read() -> str:
        with path.open("rb") as file:
            return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()

    return bytes.fromhex(seen.found("blake2b", path, read))
