"""Who each trial was, on disk: one line per trial, compact, so that a resumed search knows its equals."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evomerge.archive.files import append_line, parse_line, trim_torn_line
from evomerge.types import Identified


@dataclass(frozen=True, kw_only=True)
class Identity:
    """The canonical key of a trial's recipe, and who its model was if it was built."""

    key: str
    identified: Identified | None = None


class IdentityStore:
    """The identities of a run's trials."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def repair(self) -> None:
        """Cut off a line that a crash left unfinished; only the writer may."""
        trim_torn_line(self._path)

    def add(self, trial: int, identity: Identity) -> None:
        """Record who a trial is durably. A trial recorded twice is who it was the later time."""
        entry: dict[str, Any] = {"trial": trial, "key": identity.key}
        if (found := identity.identified) is not None:
            entry |= {
                "digest": found.digest,
                "device": found.device,
                "basis": found.basis,
                "noise": found.noise,
                "merge_seconds": round(found.merge_seconds, 3),
                "prompts": len(found.fingerprint),
                "fingerprint": _packed(found.fingerprint),
            }
        append_line(self._path, json.dumps(entry, separators=(",", ":")))

    def read(self) -> dict[int, Identity]:
        """Return who each trial was, by number."""
        found = {int(entry["trial"]): _identity(entry) for entry in self._entries()}
        return dict(sorted(found.items()))

    def _entries(self) -> Iterator[dict[str, Any]]:
        if not self._path.exists():
            return
        with self._path.open(encoding="utf-8", errors="replace") as file:
            for line in file:
                if line.endswith("\n"):  # a last line without end is being written, or was torn
                    yield parse_line(line, self._path, "trial", "key")


def _identity(entry: dict[str, Any]) -> Identity:
    if "digest" not in entry:
        return Identity(key=entry["key"])
    return Identity(
        key=entry["key"],
        identified=Identified(
            digest=entry["digest"],
            fingerprint=_unpacked(entry["fingerprint"], entry["prompts"]),
            noise=entry["noise"],
            device=entry["device"],
            merge_seconds=entry["merge_seconds"],
            basis=entry["basis"],
        ),
    )


def _packed(rows: tuple[tuple[float, ...], ...]) -> str:
    """Return the numbers as float32, which they come from, in base64."""
    numbers = [number for row in rows for number in row]
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def _unpacked(text: str, rows: int) -> tuple[tuple[float, ...], ...]:
    content = base64.b64decode(text)
    numbers = struct.unpack(f"<{len(content) // 4}f", content)
    width = len(numbers) // max(rows, 1)
    return tuple(numbers[i * width : (i + 1) * width] for i in range(rows))
