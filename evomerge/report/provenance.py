"""Where the numbers come from: versions, seeds, and digests of sources, tasks and items."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from evomerge.archive.run import Run

_NONE = "not recorded"


def facts(run: Run) -> Iterator[tuple[str, str]]:
    """Yield when, how and with what the run was made."""
    record = run.record
    recorded: Mapping[str, Any] = record.provenance
    yield "run folder", str(run.folder.path)
    yield "study", record.study
    yield "started", str(recorded.get("started") or _NONE)
    yield "command", shlex.join(map(str, recorded["command"])) if recorded.get("command") else _NONE
    yield "evomerge commit", str(recorded.get("commit") or _NONE)
    yield "versions", ", ".join(f"{name} {v}" for name, v in recorded["versions"].items() if v) or _NONE
    yield "python", str(recorded.get("python") or _NONE)
    yield "platform", str(recorded.get("platform") or _NONE)
    yield "seed", str(record.space.seed)
    yield "sampler", record.space.sampler_choice.name
    yield "thrift", record.summary()["thrift"]
    yield (
        "backend",
        f"{record.space.backend}, batch size {record.space.batch_size}, "
        f"dtype {record.space.dtype or 'as stored'}",
    )
    yield "same answers each time", "yes" if record.deterministic else "no, or not known"
    if record.changes:
        yield "changed from outside", ", ".join(f"{key}: {value}" for key, value in record.changes.items())


def sources(run: Run) -> Iterator[tuple[str, str, str]]:
    """Yield each source's name, where it is from, and its content's digest."""
    for name, ref in run.record.models.items():
        where = f"{ref.source}@{ref.revision}" if ref.revision else ref.source
        adapts = f" (adapter of {ref.adapts})" if ref.adapts else ""
        yield name, f"{where}{adapts}", ref.digest or _NONE


def tasks(run: Run) -> Iterator[tuple[str, str, str, str]]:
    """Yield each task with its numbers of items, the digest of their hashes, and that of what is asked."""
    record = run.record
    for task, splits in record.items.items():
        counts = ", ".join(f"{len(found)} {split}" for split, found in splits.items() if found)
        yield task, counts, items_digest(splits), record.wordings.get(task, _NONE)


def items_digest(splits: Mapping[str, list[str]]) -> str:
    """Return the SHA-256 of the items' content hashes by split, in their order, as `run.json` lists them."""
    text = json.dumps({split: list(found) for split, found in splits.items()}, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


def space_text(run: Run) -> str:
    """Return the space file as its author wrote it; empty if it is gone."""
    file = run.folder.path / "space.yaml"
    return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else ""
