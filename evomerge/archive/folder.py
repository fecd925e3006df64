"""The run folder: what lies where, and who may write.

runs/NAME/
  space.yaml      the space as its author wrote it
  run.json        the resolved record: versions, digests, items, seeds
  study.journal   the trials (Optuna), unless the storage is a database
  items.jsonl     every item's score
  identities.jsonl who each trial's model was: keys, digests and fingerprints
  front.json      the Pareto front, rewritten whenever it changes
  report.json     the closing report: who was chosen, scores on select and report items, gains
  report.html     the same for people, with plots, once `evomerge report` was asked for it
  log.txt         the log
  lock            held by the controller that writes
  exports/trial-N a trial as a checkpoint, once a later search starts from it
"""

from __future__ import annotations

import fcntl
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from evomerge.archive.files import clear_beside, folder_beside, write_json, write_text
from evomerge.archive.record import RunRecord, from_json
from evomerge.checkpoints.locate import RUN_FILE
from evomerge.errors import RunError
from evomerge.reading import read_json_file

_EXPORTS = "exports"
MADE_FILE = "made.json"
"""Beside the model in `exports/trial-N`: its run, its trial, the recipe's key and the content's digest."""


@dataclass(frozen=True)
class RunFolder:
    """The files of one run."""

    path: Path

    @property
    def name(self) -> str:
        """The folder's own name, as people know the run."""
        return self.path.name

    @property
    def journal(self) -> Path:
        return self.path / "study.journal"

    @property
    def items(self) -> Path:
        return self.path / "items.jsonl"

    @property
    def identities(self) -> Path:
        return self.path / "identities.jsonl"

    @property
    def front(self) -> Path:
        return self.path / "front.json"

    @property
    def report(self) -> Path:
        return self.path / "report.json"

    @property
    def log(self) -> Path:
        return self.path / "log.txt"

    def checkpoint(self, trial: int) -> Path:
        """Return where a trial is written for later searches; `trial_at` leads back."""
        return self.path / _EXPORTS / f"trial-{trial}"

    @property
    def begun(self) -> bool:
        """Whether there is a run to read or resume."""
        return (self.path / RUN_FILE).is_file()

    def read_record(self) -> RunRecord:
        """Return the record. Raises `RunError` if this is no run folder, or one that cannot be read."""
        file = self.path / RUN_FILE
        if not self.path.exists():
            raise RunError(f"no run folder at {self.path}")
        if not self.begun:
            raise RunError(f"{self.path} is not a run folder: it has no {RUN_FILE}")
        try:
            content = read_json_file(file)
        except OSError as error:
            raise RunError(f"{file} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise RunError(f"{file} is not JSON: {error}") from error
        try:
            return from_json(content)
        except RunError as error:
            raise RunError(f"{file}: {error}") from error

    def write_record(self, record: RunRecord) -> None:
        """Write the record, unless it is there as it is."""
        content = record.to_json()
        if not self.begun or json.loads((self.path / RUN_FILE).read_text(encoding="utf-8")) != content:
            write_json(self.path / RUN_FILE, content)

    def check_free(self) -> None:
        """Raise `RunError` if something is where the folder would be made, or it cannot be made there."""
        try:
            self._check_free()
        except OSError as error:
            raise RunError(f"the run folder {self.path} cannot be made: {error.strerror}") from error

    def _check_free(self) -> None:
        if self.path.is_file():
            raise RunError(f"{self.path} is a file, so no run folder; choose another `--run`")
        above = next(place for place in (self.path, *self.path.parents) if place.exists())
        if not above.is_dir() or not os.access(above, os.W_OK | os.X_OK):
            why = "not writable" if above.is_dir() else "a file"
            raise RunError(f"the run folder {self.path} cannot be made: {above} is {why}")
        if self.path.exists() and any(self.path.iterdir()):
            if self.begun:
                raise RunError(f"{self.path} exists; continue it with `--resume`, or choose another `--run`")
            raise RunError(f"{self.path} exists, and is no run folder; choose another `--run`")

    def create(self, record: RunRecord, space_text: str) -> None:
        """Make the folder. Raises `RunError` if something is there, or it cannot be written."""
        self.check_free()
        try:
            if self.path.exists():  # maybe with a disk of its own, so nothing can take its place
                self._fill(record, space_text)
                return
            self.path.parent.mkdir(parents=True, exist_ok=True)
            clear_beside(self.path)
            with folder_beside(self.path) as fresh:
                RunFolder(fresh)._fill(record, space_text)
                fresh.rename(self.path)
        except OSError as error:
            raise RunError(f"the run folder {self.path} cannot be written: {error.strerror}") from error

    def _fill(self, record: RunRecord, space_text: str) -> None:
        """Write what a new run folder holds, all or nothing."""
        try:
            write_text(self.path / "space.yaml", space_text)
            self.write_record(record)
        except OSError:
            (self.path / "space.yaml").unlink(missing_ok=True)
            raise

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Hold the folder's lock; a process that dies lets go of it. Raises `RunError` if it is held."""
        with (self.path / "lock").open("a+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                file.seek(0)
                raise RunError(
                    f"another evomerge (process {file.read().strip() or 'unknown'}) writes to {self.path}; "
                    "wait for it, or stop it and use `--resume`"
                ) from error
            file.truncate(0)
            file.write(str(os.getpid()))
            file.flush()
            yield


def resolved(path: Path) -> Path:
    """Return the path without links. Raises `RunError` for links that lead in a circle."""
    try:
        return path.resolve()
    except RuntimeError as error:
        raise RunError(f"the run folder {path} is a link that leads in a circle") from error


def trial_at(checkpoint: Path) -> tuple[RunFolder, int] | None:
    """Return of which run and trial a path is the checkpoint, by its names alone; None if of none."""
    number = re.fullmatch(r"trial-(\d+)", checkpoint.name)
    if number is None or checkpoint.parent.name != _EXPORTS:
        return None
    return RunFolder(checkpoint.parent.parent), int(number[1])


def next_free(parent: Path, name: str) -> Path:
    """Return `parent/name`, or the `name-N` after the last one there is."""
    taken = _numbers(parent, name)
    return _numbered(parent, name, max(taken) + 1) if taken else parent / name


def latest(parent: Path, name: str) -> Path:
    """Return the run of this name that was started last. Raises `RunError` if there is none."""
    taken = _numbers(parent, name)
    if not taken:
        raise RunError(f"nothing to resume: there is no run folder {parent / name}")
    return _numbered(parent, name, max(taken))


def _numbers(parent: Path, name: str) -> list[int]:
    """Return the numbers of the runs of this name; the first has none in its name and counts as 1."""
    tails = (path.name.removeprefix(name) for path in parent.glob("*") if path.name.startswith(name))
    return [int(tail[1:] or 1) for tail in tails if not tail or re.fullmatch(r"-([2-9]|[1-9]\d+)", tail)]


def _numbered(parent: Path, name: str, number: int) -> Path:
    return parent / (f"{name}-{number}" if number > 1 else name)
