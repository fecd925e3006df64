"""Compare samplers on a space: what each seed's winner scores on report items, against the baselines."""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import evomerge

QUICKSTART = Path(__file__).parent.parent / "search_spaces" / "quickstart.yaml"


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """One search: the winner's score and the baselines', searched and reported, and its speed."""

    sampler: str
    seed: int
    search: float
    report: float
    baselines: dict[str, float]
    per_minute: float


def run_one(space: Path, sampler: str, seed: int, budget: int, folder: Path) -> Outcome:
    """Search once, in a run folder of its own."""
    started = time.monotonic()
    run = evomerge.search(
        space,
        run=folder / f"{sampler}-{seed}",
        sampler=sampler,
        seed=seed,
        budget=budget,
    )
    seconds = time.monotonic() - started
    objective = run.record.objectives[0].name
    rows = _rows(run.report())
    winner = next(row for row in rows if objective in row["chosen_for"])
    return Outcome(
        sampler=sampler,
        seed=seed,
        search=winner["search"][objective],
        report=winner["report"][objective],
        baselines={
            row["label"]: row["report"][objective]
            for row in rows
            if row["label"] != "candidate" and row["report"]
        },
        per_minute=60 * budget / seconds,
    )


def _rows(report: dict[str, Any] | None) -> list[dict[str, Any]]:
    assert report is not None
    rows: list[dict[str, Any]] = report["rows"]
    return rows


def main() -> None:
    """Run every sampler under every seed and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--space", type=Path, default=QUICKSTART)
    parser.add_argument("--samplers", nargs="+", default=["cma", "tpe", "random"])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--keep", type=Path, help="keep the run folders here")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.keep or Path(temporary)
        outcomes = []
        print("| sampler | seed | winner, search items | winner, report items | per minute |")
        print("|---|---|---|---|---|", flush=True)
        for seed in range(asked.seeds):
            for sampler in asked.samplers:
                found = run_one(asked.space, sampler, seed, asked.budget, folder)
                outcomes.append(found)
                print(
                    f"| {sampler} | {seed} | {found.search:.3f} | {found.report:.3f} "
                    f"| {found.per_minute:.0f} |",
                    flush=True,
                )
    print("\n| median over seeds, report items | |\n|---|---|")
    for sampler in asked.samplers:
        scores = [found.report for found in outcomes if found.sampler == sampler]
        print(f"| {sampler} | {statistics.median(scores):.3f} |")
    for label in outcomes[0].baselines:
        scores = [found.baselines[label] for found in outcomes if label in found.baselines]
        print(f"| {label} | {statistics.median(scores):.3f} |")


if __name__ == "__main__":
    main()
