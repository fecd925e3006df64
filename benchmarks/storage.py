"""What a candidate's trial takes in each storage, in bytes and in the controller's time; nothing is merged.

Beside it a run folder has the candidate's item scores and its identity; `--run` measures those of a run.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sqlalchemy import create_engine, text

import evomerge
from evomerge.archive.study import StudyRecord, open_storage
from evomerge.controller.sampling import SamplerContext, make_sampler
from evomerge.space import GeneSpec
from evomerge.types import Measure, Scored
from tests.archive.postgres import running

MEASURE = Measure(name="task", task="task", metric="acc", filter="none", higher_is_better=True)
KEY = "0" * 16


def record(where: str | Path, genes: list[GeneSpec], count: int) -> float:
    """Return the seconds that asking and telling a candidate took, in the mean."""
    context = SamplerContext(
        genes=tuple(genes), objectives=(MEASURE,), seed=0, workers=1, trials_before=0, options={}
    )
    study = StudyRecord(
        open_storage(where), "run",
        objectives=[MEASURE], genes=genes, sampler=make_sampler("cma", context),
    )  # fmt: skip
    started = time.monotonic()
    for i in range(count):
        number = study.ask().number
        study.note(number, recipe=KEY, canonical=KEY, method="task_arithmetic")
        scores = {"task": (i * 37 % 200) / 200}
        study.tell_scored(
            number, Scored(scores=scores, items=(), merge_seconds=1, score_seconds=1, device="cpu"), {}
        )
    return (time.monotonic() - started) / count


@contextmanager
def places(folder: Path) -> Iterator[dict[str, str | Path]]:
    """Give a fresh storage of each kind."""
    with running() as server:
        yield {
            "journal": folder / "study.journal",
            "SQLite": f"sqlite:///{folder}/study.db",
            "PostgreSQL": server.url,
        }


def size(where: str | Path) -> int:
    """Return the bytes that a storage takes on its disk."""
    if isinstance(where, Path):
        return where.stat().st_size if where.exists() else 0
    if where.startswith("sqlite"):
        file = Path(where.removeprefix("sqlite:///"))
        return file.stat().st_size if file.exists() else 0
    with create_engine(where).connect() as connection:
        return int(connection.execute(text("select pg_database_size(current_database())")).scalar_one())


def measure(genes: int, count: int) -> None:
    """Print a line for each storage."""
    specs = [GeneSpec(name=f"weight/model/L{layer}", low=0.0, high=1.0) for layer in range(genes)]
    with tempfile.TemporaryDirectory() as folder, places(Path(folder)) as each:
        for kind, where in each.items():
            record(where, specs, 1)  # makes the tables
            empty = size(where)
            seconds = record(where, specs, count)
            grown = (size(where) - empty) / count
            print(f"| {kind} | {genes} | {grown:,.0f} | {1000 * seconds:.0f} |", flush=True)


def measure_run(path: Path) -> None:
    """Print what each candidate of a run takes in the files of its folder."""
    run = evomerge.open_run(path)
    count = len(run.trials())
    for file in (run.folder.journal, run.folder.items, run.folder.identities):
        print(f"{file.name}: {file.stat().st_size / count:,.0f} bytes a candidate")


def main() -> None:
    """Measure every storage with few and with many genes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--genes", type=int, nargs="+", default=[10, 300])
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--run", type=Path, help="measure this run folder instead")
    asked = parser.parse_args()
    if asked.run is not None:
        measure_run(asked.run)
        return
    print("| storage | genes | bytes a candidate | ms a candidate |")
    print("|---|---|---|---|")
    for genes in asked.genes:
        measure(genes, asked.count)


if __name__ == "__main__":
    main()
