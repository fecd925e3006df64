"""Content digests, so that a recipe names weights and not places."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from evomerge.checkpoints.folder import Checkpoint


def digest(checkpoint: Checkpoint) -> str:
    """Return `blake2b:` and 32 hex digits over the config and every byte of the weights."""
    files = [checkpoint.path / "config.json", *checkpoint.weight_files]
    with ThreadPoolExecutor(max_workers=min(4, len(files))) as pool:
        parts = list(pool.map(_file_digest, files))
    whole = hashlib.blake2b(b"".join(parts), digest_size=16)
    return f"blake2b:{whole.hexdigest()}"


def _file_digest(path: Path) -> bytes:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
