"""Optuna's journal, which waits for the disk once for lines that belong together (ADR 25).

Optuna waits for each line, of which a candidate has two dozen. Lines are written at once all the same, and
in their order: a process that is killed loses none, and a power cut leaves as many of them as it pleases,
from the first on, as it always could.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.storages.journal import JournalFileBackend, JournalFileSymlinkLock

from evomerge.archive.optuna_private import ReadOn


class Journal(ReadOn):
    """The storage in a journal file. Raises what Optuna does of a file that is damaged."""

    def __init__(self, path: Path) -> None:
        self._file = _File(path)
        super().__init__(self._file)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Wait for the disk at the end of the block, for all that is recorded in it; blocks may be nested."""
        with self._file.together():
            yield


class _File(JournalFileBackend):
    def __init__(self, path: Path) -> None:
        self._place, self._guard = path, JournalFileSymlinkLock(str(path))
        self._depth = 0
        super().__init__(str(path), self._guard)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        lines = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs)
        self._guard.acquire()
        try:
            with self._place.open("ab") as file:
                file.write(lines.encode())
                file.flush()
                if self._depth == 0:
                    os.fsync(file.fileno())
        finally:
            self._guard.release()

    @contextmanager
    def together(self) -> Iterator[None]:
        self._depth += 1
        try:
            yield
        finally:
            self._depth -= 1
            if self._depth == 0:
                with self._place.open("ab") as file:
                    os.fsync(file.fileno())
