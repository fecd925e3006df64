"""Whether inherited scores are those that scoring gives: searches of the zoo, every heir scored after all.

python benchmarks/audit.py [--budget 200] [--seeds 1] [--out FOLDER]

Prints, for each search and kind of hit, how many inherited and how many of these wrongly: a score off by more
than a last digit, or an item answered otherwise than by the trial inherited from. Wrong ones should be 0.
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
from evomerge.archive.study import HOW, INHERITED
from evomerge.controller.equivalents import agreement
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
    """A trial that went by an earlier one: what showed that it could, how it ended, and what is wrong."""

    how: str
    wrong: str | None


def hits(run: Run) -> Iterator[Hit]:
    """Yield what is wrong with each heir of a run, scored on all search items, if anything is."""
    evaluator = Evaluator(run.record.brief())
    origins: dict[int, Scored] = {}
    for trial in filter(is_heir, run.frozen_trials):
        origin = int(trial.user_attrs[INHERITED])
        if origin not in origins:
            origins[origin] = scored(evaluator, run, origin)
        how = str(trial.user_attrs.get(HOW, "dropped again"))
        yield Hit(how=how, wrong=difference(trial, scored(evaluator, run, trial.number), origins[origin]))
    evaluator.close()


def scored(evaluator: Evaluator, run: Run, number: int) -> Scored:
    """Return what a trial scores on all search items. Raises `RuntimeError` if it fails."""
    found = evaluator.evaluate(run.recipe(number))
    if not isinstance(found, Scored):
        raise RuntimeError(f"trial {number} of {run.folder.path} failed: {found.reason}")
    return found


def difference(heir: FrozenTrial, ours: Scored, theirs: Scored) -> str | None:
    """Return how an heir differs from its origin, or from the scores it was given."""
    given: Mapping[str, float] = heir.user_attrs.get("scores", theirs.scores)
    for name, score in ours.scores.items():
        if not math.isclose(score, given[name], rel_tol=1e-6):
            return f"trial {heir.number}: {name} is {score:.6f}, was given {given[name]:.6f}"
    same = agreement(ours.items, theirs.items)
    return None if same.agreeing == 1 else f"trial {heir.number}: {same.agreeing:.1%} of the items agree"


def audited(run: Run) -> Sequence[Hit]:
    """Return the hits of a run, and print them by kind."""
    found = list(hits(run))
    trials = len(run.frozen_trials)
    kinds = Counter(hit.how for hit in found)
    wrong = [hit for hit in found if hit.wrong]
    said = ", ".join(f"{count} by {how}" for how, count in sorted(kinds.items())) or "none"
    effort = (run.report() or {})["effort"]
    share = effort["items"] / effort["all_items"]
    print(
        f"{run.folder.name:28} {trials} trials, {share:.0%} of items; inherited: {said}; wrong: {len(wrong)}"
    )
    for hit in wrong:
        print(f"    by {hit.how}: {hit.wrong}")
    return found


def main() -> None:
    """Search, audit, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--dtype", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--racing", action="store_true", help="as a search does by default; else all items")
    parser.add_argument("--out", type=Path, help="keep the runs here")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as kept:
        found: list[Hit] = []
        out = asked.out or Path(kept)
        out.mkdir(parents=True, exist_ok=True)
        for name, space in SPACES.items():
            for dtype in asked.dtype:
                for seed in range(asked.seeds):
                    title = f"{name}, {dtype}, {seed}".replace(", ", "-").replace(" ", "-")
                    racing = "" if asked.racing else "racing: false\n"
                    file = out / f"{title}.yaml"
                    file.write_text(COMMON.replace("DTYPE", dtype) + space + racing)
                    run = search(file, run=out / title, serial=True, budget=asked.budget, seed=seed)
                    found += audited(run)
        print(f"all: {len(found)} hits, {sum(hit.wrong is not None for hit in found)} wrong")


if __name__ == "__main__":
    main()
