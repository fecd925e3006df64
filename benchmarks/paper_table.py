"""The table of the paper at our size: parents, untuned merges, and what each search finds with one budget.

After Akiba et al. 2024, https://arxiv.org/abs/2403.13187, with what theirs lacks: several seeds, intervals
of paired differences, and the same budget for every search. Each seed splits the items of `math_b` anew; all
rows of a seed are chosen on the same items and reported on the same others. Winners are points of the
searched space: other baselines that a search scores count as candidates and win for none.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from optuna.trial import TrialState

import evomerge
from evomerge.archive.record import RunRecord, provenance
from evomerge.archive.run import Run
from evomerge.comparison.paired import compare
from evomerge.controller.setup import resolve
from evomerge.evaluate.evaluator import Evaluator
from evomerge.recipe import Merge, Recipe, Slot, layer_swap, passthrough, to_yaml
from evomerge.space.load import read_space
from evomerge.types import Scored, Split

QUICKSTART = Path(__file__).parent.parent / "search_spaces" / "quickstart.yaml"
PARENTS = BASE, MATH, LANG = "base", "math", "lang"

LAYERS = 6  # of every model of the zoo


@dataclass(frozen=True, kw_only=True)
class Search:
    """One search: the form of its path (none: a search for a merge), and whether it begins from a stage.

    A staged search spends half the budget on the quickstart space and goes on from what that found, `best`.
    """

    path: Mapping[str, Any] | None = None
    staged: bool = False

    def changes(self, name: str, best: Path | None) -> dict[str, Any]:
        """Return the keys that differ from those of the quickstart space."""
        found: dict[str, Any] = {"name": name, "sampler": "cma"}
        if self.path is not None:
            found["path"] = dict(self.path)
            if "merged" not in self.path["models"]:
                found["merge"] = {"base": BASE}
        if best is not None:
            found["sources"] = {BASE: f"zoo:{BASE}", "best": str(best), LANG: f"zoo:{LANG}"}
        return found


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one row came to under one seed; `items` are its scores on the report items, in their order."""

    row: str
    seed: int
    search: float
    report: float
    items: tuple[float, ...]
    seconds: float
    candidates: int
    layers: int
    recipe: str


def _dfs(form: str, first: str, *others: str, **keys: Any) -> Search:
    """Return a search for a stack that begins as all of `first`, whose ends come from any of the models."""
    models = [first, *others]
    return Search(path={"form": form, "models": models, "embed": models, "head": models, **keys})


ALL = ["merged", MATH, LANG]
FIXED: dict[str, Any] = {"scale": 1.0}  # so that two forms differ in nothing else
SEARCHES = {
    "layer swap": Search(path={"form": "layer_swap", "models": [MATH, LANG]}),
    "PS": Search(),
    "DFS, slots as in the paper": Search(path={"form": "slots", "models": [MATH, LANG]}),
    "DFS, slots": _dfs("slots", MATH, LANG, **FIXED),
    "DFS, blocks": _dfs("blocks", MATH, LANG),
    "DFS from lang, slots": _dfs("slots", LANG, MATH, **FIXED),
    "DFS from lang, blocks": _dfs("blocks", LANG, MATH),
    "PS+DFS at once, slots": Search(path={"form": "slots", "models": ALL, "repeats": 1, **FIXED}),
    "PS+DFS at once, blocks": Search(path={"form": "blocks", "models": ALL}),
    "PS+DFS in stages": replace(_dfs("blocks", "best", LANG), staged=True),
}


def _alone(name: str) -> Merge:
    return Merge(method="linear", sources=(name,))


def _usual(method: str, **params: float) -> Merge:
    return Merge(method=method, base=BASE, sources=(MATH, LANG), params=params)


UNSEARCHED: dict[str, Merge | tuple[Slot, ...]] = {
    **{name: _alone(name) for name in PARENTS},
    "uniform average": Merge(method="linear", sources=(MATH, LANG)),
    "task arithmetic (1, 1)": _usual("task_arithmetic", weight=1.0),
    "TIES": _usual("ties"),
    "DARE-TIES": _usual("dare_ties"),
    "stack: math 0-3, lang 2-5": passthrough([(MATH, 0, 4), (LANG, 2, 6)]),
    "stack: math, lang 2-3 in the middle": passthrough([(MATH, 0, 3), (LANG, 2, 4), (MATH, 3, 6)]),
    # 4, 2 and 1 of 32 layers, where the search for widths begins, too
    "layer swap, untuned": layer_swap(MATH, LANG, layers=LAYERS, bottom=1, top=0, transition=1),
}


def _recipe(what: Merge | tuple[Slot, ...], record: RunRecord) -> Recipe:
    parts: dict[str, Any] = {"merges": {"merged": what}} if isinstance(what, Merge) else {"path": what}
    return Recipe(models=record.models, dtype=record.space.dtype, seed=record.space.seed, **parts)


def without_search(rows: Sequence[str], seed: int) -> Iterator[Outcome]:
    """Yield the rows that are not searched, on the items of a seed."""
    record = resolve(read_space(QUICKSTART, {"seed": seed}))
    evaluator = Evaluator(record.brief())
    for label, what in UNSEARCHED.items():
        if label in rows:
            recipe = _recipe(what, record)
            searched = _scored(evaluator, recipe, "search")
            yield _outcome(
                evaluator, recipe, row=label, seed=seed, candidates=1,
                search=next(iter(searched.scores.values())),
                seconds=searched.merge_seconds + searched.score_seconds,
            )  # fmt: skip
    evaluator.close()


def with_search(row: str, seed: int, budget: int, workers: int, folder: Path) -> Outcome:
    """Return the outcome of one search, in run folders of its own."""
    asked, place = SEARCHES[row], folder / f"{row.replace(', ', '-').replace(' ', '-')}-{seed}"
    started, best = time.monotonic(), None
    share = budget // 2 if asked.staged else budget
    if asked.staged:
        first = _search(Search(), seed, share, workers, place / "stage1")
        best = evomerge.export(first, place / "best")
    run = _search(asked, seed, share, workers, place / "run", best)
    seconds = time.monotonic() - started
    number = winner(run)
    evaluator = Evaluator(run.record.brief())
    found = _outcome(
        evaluator, run.recipe(number), row=row, seed=seed, candidates=share * (1 + asked.staged),
        search=next(iter(run.scores(number).values())), seconds=seconds,
    )  # fmt: skip
    evaluator.close()
    return found


def _search(
    asked: Search, seed: int, budget: int, workers: int, place: Path, best: Path | None = None
) -> Run:
    space = evomerge.load_space(QUICKSTART, asked.changes(place.name, best))
    return evomerge.search(
        space, run=place, seed=seed, budget=budget, workers=workers or None, serial=not workers
    )


def winner(run: Run) -> int:
    """Return the trial chosen among points of the space: a baseline that is none wins for no search.

    Where the search chose such a baseline, it is the finalist with the best select score of the others; where
    all finalists are, the point with the best search score.
    """
    if run.frozen_trials[run.best()].params:
        return run.best()
    objective = run.record.objectives[0]
    report = run.report() or {"rows": []}
    scores: dict[int, float] = {
        row["trial"]: row["select"][objective.name] for row in report["rows"] if row["select"]
    }
    again = {number: score for number, score in scores.items() if run.frozen_trials[number].params}
    points = again or {
        trial.number: trial.values[0]
        for trial in run.frozen_trials
        if trial.state == TrialState.COMPLETE and trial.params
    }
    return max(points, key=lambda number: (objective.oriented(points[number]), -number))


def _outcome(evaluator: Evaluator, recipe: Recipe, **known: Any) -> Outcome:
    """Return the outcome of a recipe, of which all but the report is `known`."""
    reported = _scored(evaluator, recipe, "report")
    return Outcome(
        report=next(iter(reported.scores.values())), items=reported.items[0].scores,
        layers=len(recipe.path) if recipe.path is not None else LAYERS, recipe=to_yaml(recipe), **known,
    )  # fmt: skip


def _scored(evaluator: Evaluator, recipe: Recipe, split: Split) -> Scored:
    result = evaluator.evaluate(recipe, split)
    assert isinstance(result, Scored), result
    return result


def table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    """Yield the lines of the table: means over the seeds, what each seed reported, and what it gained."""
    yield (
        "| model | report items | each seed | gain over the best parent, with 95 % intervals "
        "| search items | layers | seconds | candidates |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for row in dict.fromkeys(each.row for each in outcomes):
        mine = [each for each in outcomes if each.row == row]
        gains = "; ".join(_gain(each, outcomes) for each in mine)
        yield (
            f"| {row} | {_mean(each.report for each in mine)} | {', '.join(_share(e.report) for e in mine)} "
            f"| {gains} | {_mean(each.search for each in mine)} "
            f"| {', '.join(str(each.layers) for each in mine)} "
            f"| {statistics.fmean(each.seconds for each in mine):.3g} | {mine[0].candidates} |"
        )


def _gain(outcome: Outcome, outcomes: Sequence[Outcome]) -> str:
    """Return by how much an outcome is above the best parent on the same items, with its interval."""
    parents = [each for each in outcomes if each.seed == outcome.seed and each.row in PARENTS]
    rival = max(parents, key=lambda parent: parent.report)
    if rival.row == outcome.row:
        return "–"
    difference = compare(outcome.items, rival.items)
    assert difference is not None  # there are hundreds of items
    low, high = difference.interval()
    return f"{_share(outcome.report - rival.report)} ({_share(low)} to {_share(high)})"


def _mean(values: Iterator[float]) -> str:
    return _share(statistics.fmean(values))


def _share(value: float) -> str:
    return f"{value:.3f}".replace("0.", ".", 1).replace("-", "−")


def main() -> None:
    """Run the rows under every seed and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    known = [*UNSEARCHED, *SEARCHES]
    parser.add_argument(
        "--rows", nargs="+", choices=known, default=known, metavar="ROW", help=", ".join(known)
    )
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budget", type=int, default=200, help="candidates of each search")
    parser.add_argument("--workers", type=int, default=2, help="0 searches in this process")
    parser.add_argument("--keep", type=Path, help="keep the run folders here")
    parser.add_argument("--out", type=Path, help="write all outcomes, with their recipes, to this file")
    asked = parser.parse_args()
    outcomes: list[Outcome] = []
    with tempfile.TemporaryDirectory() as temporary:
        for seed in range(asked.seeds):
            outcomes += without_search([*PARENTS, *asked.rows], seed)
            for row in SEARCHES:
                if row in asked.rows:
                    found = with_search(row, seed, asked.budget, asked.workers, asked.keep or Path(temporary))
                    print(f"{row}, seed {seed}: {found.report:.3f}, {found.seconds:.0f} s", file=sys.stderr)
                    outcomes.append(found)
    print("\n".join(table(outcomes)))
    if asked.out:
        setting = {"seeds": asked.seeds, "budget": asked.budget, "workers": asked.workers}
        content = {**setting, "made by": provenance(), "outcomes": [asdict(each) for each in outcomes]}
        asked.out.write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")


if __name__ == "__main__":
    main()
