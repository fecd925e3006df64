"""Searches of the zoo as `evomerge search --serial`, begun or gone on with in a process of their own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.faults.killing import End, Forks
from tests.faults.leavings import leavings


@dataclass(frozen=True)
class Searched:
    """A space, and what an uninterrupted search of it left after so many instants."""

    file: Path
    lived: dict[str, Any]
    instants: int


def sitting(forks: Forks, file: Path, run: Path, **kill: Any) -> End:
    """Begin a search or go on with it."""
    resume = ["--resume"] if (run / "run.json").exists() else []
    words = ["search", str(file), "--run", str(run), "--serial", "--quiet", *resume]
    return forks.run("tests.faults.killing:command", *words, **kill)


def finish(forks: Forks, file: Path, run: Path) -> dict[str, Any]:
    end = sitting(forks, file, run)
    assert end.code == 0, end.err
    return leavings(run)


def lived(forks: Forks, folder: Path, tasks: Path, text: str) -> Searched:
    file = folder / "space.yaml"
    file.write_text(text.replace("TASKS", str(tasks)))
    end = sitting(forks, file, folder / "lived")
    assert end.code == 0, end.err
    return Searched(file, leavings(folder / "lived"), end.instants)
