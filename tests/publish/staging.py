"""A trial of a run as a source of the next search, which must score as it did."""

from __future__ import annotations

from pathlib import Path

from evomerge.archive.run import Run
from evomerge.controller.public import search
from evomerge.publish.public import export


def next_search(run: Run, number: int, text: str, folder: Path) -> Path:
    """Search the space `text`, where RUN stands for the trial as a source `best`, and export that parent.

    Returns the export, which is held to its score, and so to that of the trial.
    """
    assert text.count("RUN") == 1
    (folder / "next.yaml").write_text(text.replace("RUN", f"{{run: {run.folder.path}, pick: {number}}}"))
    second = search(folder / "next.yaml", run=folder / "next", serial=True, budget=6)
    trials = second.trials()
    parent = int(trials[trials["baseline"] == "parent best"]["trial"].iloc[0])
    assert second.scores(parent) == run.scores(number)
    assert set(trials["state"]) == {"scored"}
    return export(second, folder / "parent", trial=parent)
