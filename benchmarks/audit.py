"""Whether inherited scores are those that scoring gives: searches of the zoo, every heir scored after all.

python benchmarks/audit.py [--budget 200] [--seeds 1] [--out FOLDER]

Prints, for each search and kind of hit, how many inherited and how many of these wrongly: a score off by
more than what an audit tolerates. Those should be 0. Of others it tells, too, whose score is off by more
than a last digit, or that answer an item otherwise than the trial inherited from.
"""

from __future__ import annotations

import argparse
import math
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from optuna.trial import FrozenTrial

from evomerge.archive.run import Run, is_heir
from evomerge.archive.trials import HOW, INHERITED
from evomerge.controller.equivalents import agreement, differ
from evomerge.controller.public import search
from evomerge.evaluate.evaluator import Evaluator
from evomerge.types import Scored

COMMON = """
sources: {base: zoo:base, math: zoo:math, lang: zoo:lang}
tasks: zoo:tasks
items: {search: 200, select: 100, report: 100}
dtype: DTYPE
batch_size: 64
"""
SUMS = "merge: {base: base, layers: 3, genes: {weight: GENE}}\n"
ENDS = "embed: [math, lang], head: [math, lang]"
PATH = f"merge: {{base: base}}\npath: {{form: FORM, models: [math, lang], {ENDS}MORE}}\n"
ONE = "objectives: [{task: math_b, metric: acc}]\nsampler: cma\n"
TWO = "objectives: [{task: math_b, metric: acc}, {task: stories_b, metric: bits_per_byte}]\nsampler: nsgaii\n"

SPACES: Mapping[str, str] = {
    "sums": SUMS.replace("GENE", "{low: -0.3, high: 2.0}") + ONE,
    "sums of few weights": SUMS.replace("GENE", "[0, 0.5, 1, 1.5]") + ONE,
    "sums of nearly equal weights": SUMS.replace("GENE", "{low: 1.0, high: 1.00003}") + ONE,
    "blocks": PATH.replace("FORM", "blocks").replace("MORE", ", layers: 3") + ONE,
    "slots": PATH.replace("FORM", "slots").replace("MORE", ", repeats: 1, scale: 1") + ONE,
    "blocks, two objectives": PATH.replace("FORM", "blocks").replace("MORE", ", layers: 3") + TWO,
    "sums, two objectives": SUMS.replace("GENE", "[0, 0.5, 1, 1.5]") + TWO,
}


@dataclass(frozen=True, kw_only=True)
class Hit:
    """A trial that went by an earlier one: what showed that it could, and in what it is not as that one."""

    how: str
    differs: str | None
    wrong: bool


def hits(run: Run) -> Iterator[Hit]:
    """Yield each heir of a run, compared with its origin on all search items."""
    evaluator = Evaluator(run.record.brief())
    origins: dict[int, Scored] = {}
    for trial in filter(is_heir, run.frozen_trials):
        origin = int(trial.user_attrs[INHERITED])
        if origin not in origins:
            origins[origin] = scored(evaluator, run, origin)
        how = str(trial.user_attrs.get(HOW, "dropped again"))
        yield compared(how, trial, scored(evaluator, run, trial.number), origins[origin])
    evaluator.close()


def scored(evaluator: Evaluator, run: Run, number: int) -> Scored:
    """Return what a trial scores on all search items. Raises `RuntimeError` if it fails."""
    found = evaluator.evaluate(run.recipe(number))
    if not isinstance(found, Scored):
        raise RuntimeError(f"trial {number} of {run.folder.path} failed: {found.reason}")
    return found


def compared(how: str, heir: FrozenTrial, ours: Scored, theirs: Scored) -> Hit:
    """Return an heir with how it differs from its origin, or from the scores it was given."""
    given: Mapping[str, float] = heir.user_attrs.get("scores", theirs.scores)
    off = [
        f"{name} is {score:.4f}, was given {given[name]:.4f}"
        for name, score in ours.scores.items()
        if not math.isclose(score, given[name], rel_tol=1e-6)
    ]
    agreeing = agreement(ours.items, theirs.items).agreeing
    if agreeing < 1:
        off.append(f"{agreeing:.1%} of the items agree")
    return Hit(
        how=how,
        differs=f"trial {heir.number}: {', '.join(off)}" if off else None,
        wrong=any(differ(score, given[name]) for name, score in ours.scores.items()),
    )


def audited(run: Run) -> Sequence[Hit]:
    """Return the hits of a run, and print them by kind."""
    found = list(hits(run))
    trials = len(run.frozen_trials)
    kinds = Counter(hit.how for hit in found)
    wrong = sum(hit.wrong for hit in found)
    others = [hit for hit in found if hit.differs]
    said = ", ".join(f"{count} by {how}" for how, count in sorted(kinds.items())) or "none"
    effort = (run.report() or {})["effort"]
    share = effort["items"] / effort["all_items"]
    print(
        f"{run.folder.name:28} {trials} trials, {share:.0%} of items; "
        f"inherited: {said}; wrong: {wrong}, of another score or answer: {len(others)}"
    )
    for hit in others:
        print(f"    by {hit.how}: {hit.differs}")
    return found


def main() -> None:
    """Search, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--spaces", nargs="+", default=list(SPACES), choices=list(SPACES))
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--racing", action="store_true", help="as a search does by default; else all items")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept:
        found: list[Hit] = []
        out = asked.out or Path(kept)
        out.mkdir(parents=True, exist_ok=True)
        for name in asked.spaces:
            for dtype in asked.dtype:
                for seed in range(asked.seeds):
                    title = f"{name}, {dtype}, {seed}".replace(", ", "-").replace(" ", "-")
                    racing = "" if asked.racing else "racing: false\n"
                    file = out / f"{title}.yaml"
                    file.write_text(COMMON.replace("DTYPE", dtype) + SPACES[name] + racing)
                    run = search(file, run=out / title, serial=True, budget=asked.budget, seed=seed)
                    found += audited(run)
        print(f"all: {len(found)} hits, {sum(hit.wrong for hit in found)} wrong")


if __name__ == "__main__":
    main()
