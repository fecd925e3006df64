"""Racing on the zoo: the share of item evaluations it takes, and what its winner loses by it.

Each seed is searched twice, with and without racing; it splits the items anew. The winners are those each run
chose on select items, compared on its report items.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import evomerge
from evomerge.archive.run import Run

QUICKSTART = Path(__file__).parent.parent / "search_spaces" / "quickstart.yaml"


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a search scored, as a share of all items, how well its choice reports, how siblings differ."""

    share: float
    report: float
    discordance: float
    seconds: float


def search_once(space: Path, run: Path, *, seed: int, budget: int) -> Found:
    """Search in this process."""
    started = time.monotonic()
    found = evomerge.search(space, run=run, seed=seed, budget=budget, serial=True)
    seconds = time.monotonic() - started
    objective = found.record.objectives[0]
    items = found.items()
    searched = items[items["split"] == "search"]
    count = len(found.record.items[objective.task]["search"])
    report = found.report()
    assert report is not None
    chosen = next(row for row in report["rows"] if row["trial"] == found.best())
    return Found(
        share=len(searched) / (count * len(found.trials())),
        report=chosen["report"][objective.name],
        discordance=_discordance(found),
        seconds=seconds,
    )


def _discordance(run: Run) -> float:
    """Return the median share of items on which a fully scored candidate and the chosen one differ."""
    items = run.items()
    table = items[items["split"] == "search"].pivot(index="trial", columns="item", values="score").dropna()
    candidates = table[table.index >= run.trials()["baseline"].notna().sum()]
    best = table.loc[run.best()]
    return float(candidates.ne(best, axis=1).mean(axis=1).median())


def main() -> None:
    """Search each seed with and without racing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs=2, default=(0, 20), help="from and to")
    parser.add_argument("--budget", type=int, default=200)
    asked = parser.parse_args()
    found: dict[str, list[Found]] = {"on": [], "off": []}
    print(
        "| seed | items | report, racing | report, full | seconds | discordance |\n|---|---|---|---|---|---|"
    )
    with tempfile.TemporaryDirectory() as temporary:
        spaces = {racing: Path(temporary) / f"{racing}.yaml" for racing in found}
        for racing, path in spaces.items():
            path.write_text(f"{QUICKSTART.read_text()}\nracing: {racing}\ninherit: false\n")
        for seed in range(*asked.seeds):
            for racing, path in spaces.items():
                run = Path(temporary) / f"{racing}-{seed}"
                found[racing].append(search_once(path, run, seed=seed, budget=asked.budget))
            on, off = found["on"][-1], found["off"][-1]
            print(
                f"| {seed} | {on.share:.3f} | {on.report:.4f} | {off.report:.4f} "
                f"| {on.seconds:.0f} / {off.seconds:.0f} | {off.discordance:.3f} |",
                flush=True,
            )
    lost = [off.report - on.report for on, off in zip(found["on"], found["off"], strict=True)]
    error = statistics.stdev(lost) / len(lost) ** 0.5 if len(lost) > 1 else float("nan")
    print(f"\nitems {statistics.fmean(each.share for each in found['on']):.1%}, ", end="")
    print(f"regret {100 * statistics.fmean(lost):+.2f} ± {100 * error:.2f} points over {len(lost)} seeds")


if __name__ == "__main__":
    main()
