"""Measure what candidates of a path search cost, and what a cache of their common prefixes would save.

Memory is that of a process of its own over random models on disk: `RssAnon`, without pages of mapped files,
less what was there before the first candidate. Times are of the zoo, processor time: machines are shared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from benchmarks.memory import Shape, peak_of_anonymous, status, write_models
from evomerge.recipe import ModelRef, Recipe, Slot

Stack: TypeAlias = tuple[tuple[str, int, float], ...]
Genes: TypeAlias = "np.ndarray[Any, np.dtype[np.float64]]"

MODELS = ("one", "two")
QUICKSTART = Path(__file__).parents[1] / "search_spaces" / "quickstart.yaml"


def recipe_of(stack: Stack, models: dict[str, ModelRef]) -> Recipe:
    """Return the recipe of a stack of (model, layer, scale)."""
    path = tuple(Slot(model=model, layer=layer, scale=scale) for model, layer, scale in stack)
    return Recipe(models=models, path=path)


# (a) memory


def memory_of(folder: Path, layers: int, *, scaled: bool) -> Iterator[dict[str, float]]:
    """Yield, for candidates of one after another depth, what they hold and the peak so far, in bytes."""
    import torch

    from evomerge.checkpoints.folder import open_checkpoint
    from evomerge.checkpoints.tensors import open_library
    from evomerge.evaluate.evaluator import only_compute
    from evomerge.merge.memory import ResidentModel
    from evomerge.merge.planning import compile_plan

    only_compute(1)
    checkpoints = {name: open_checkpoint(folder / name) for name in MODELS}
    library = open_library(checkpoints, checkpoints)
    resident = ResidentModel(library, device=torch.device("cpu"))
    random = np.random.default_rng(0)
    mapped = {library.raw(name, each).data_ptr() for name in MODELS for each in checkpoints[name].specs}
    before = status("RssAnon")
    with peak_of_anonymous() as peak:
        for repeats in (1, 2, 3, 1, 3):
            once = [(MODELS[layer % 2], layer) for layer in range(layers)] * repeats
            scales = random.uniform(0.9, 1.1, len(once)) if scaled else np.ones(len(once))
            stack = tuple((*each, float(scale)) for each, scale in zip(once, scales, strict=True))
            refs = {name: ModelRef(source=name) for name in MODELS}
            plan = compile_plan(recipe_of(stack, refs), checkpoints)
            model = resident.load(plan)
            places = {each.data_ptr(): each.nbytes for each in model.parameters()}
            yield {
                "repeats": repeats,
                "whole": plan.nbytes,
                "distinct": sum(places.values()),
                "unmapped": sum(size for place, size in places.items() if place not in mapped),
                "held": status("RssAnon") - before,
                "peak": peak[0] - before,
            }


def print_memory(shape: Shape) -> None:
    """Write two models, load candidates in processes of their own and print the table."""
    with tempfile.TemporaryDirectory() as temporary:
        write_models(Path(temporary), shape)
        print("| scales | stack | all its layers, GB | distinct | of those not mapped | held | peak so far |")
        print("|---|---|---|---|---|---|---|", flush=True)
        for scales in ("none", "random"):
            child = ["-m", "benchmarks.paths", "--child", temporary, scales, "--layers", str(shape.layers)]
            done = subprocess.run(
                [sys.executable, *child],
                stdout=subprocess.PIPE, text=True, check=True, cwd=Path(__file__).parents[1],
            )  # fmt: skip
            for line in done.stdout.splitlines():
                found = json.loads(line)
                sizes = " | ".join(
                    f"{found[key] / 1e9:.2f}" for key in ("whole", "distinct", "unmapped", "held", "peak")
                )
                print(f"| {scales} | {found['repeats']}× | {sizes} |", flush=True)


# (b) time


class Timing:
    """The zoo's quickstart items, asked of one recipe after another; `spent` are seconds by what was done."""

    def __init__(self) -> None:
        from evomerge.checkpoints.models import open_models
        from evomerge.checkpoints.tensors import open_library
        from evomerge.controller.setup import resolve
        from evomerge.evaluate.evaluator import ItemScoring, device_named, only_compute
        from evomerge.merge.memory import ResidentModel
        from evomerge.space import read_space
        from evomerge.space.baselines import baselines

        only_compute(1)
        record = resolve(read_space(QUICKSTART))
        brief = record.brief()
        self._checkpoints = open_models(brief.checkpoints, brief.adapts)
        library = open_library(self._checkpoints, self._checkpoints)
        self._resident = ResidentModel(library, device=device_named(brief.device))
        self._scoring = ItemScoring(brief)
        known = [baseline.recipe for baseline in baselines(record.genome)]
        self.merge = next(recipe for recipe in known if len(recipe.models) == len(self._checkpoints))
        self.spent: dict[str, list[float]] = defaultdict(list)

    def ask(self, what: str, recipe: Recipe, layers: int) -> None:
        """Make and score a candidate."""
        from evomerge.merge.planning import compile_plan

        started = time.process_time()
        plan = compile_plan(recipe, self._checkpoints)
        model = self._resident.load(plan)
        made = time.process_time()
        assert plan.tokenizer is not None
        self._scoring.score(model, plan.tokenizer, "search")
        self.spent[what].append(made - started)
        self.spent[f"scoring, {layers} layers"].append(time.process_time() - made)

    def ask_path(self, what: str, layers: int, scale: float = 1.0) -> None:
        """Make and score a stack of so many layers."""
        stack = tuple((("math", "lang")[i % 2], i % 6, scale) for i in range(layers))
        self.ask(what, recipe_of(stack, dict(self.merge.models)), layers)


def print_times(rounds: int) -> None:
    """Print what it takes to make and to score candidates of the zoo."""
    timing = Timing()
    timing.ask_path("first candidate of all", 6)
    for layers in (8, 10, 12):
        timing.ask_path("another depth, for the first time", layers)
    for _ in range(rounds):
        for layers in (6, 12):
            timing.ask_path("another depth, again", layers)
            timing.ask_path("the same depth", layers)
        for layers in (6, 12):
            timing.ask_path("another depth, again, every layer scaled", layers, 0.99)
        timing.ask_path("another depth, again", 6)
        timing.ask("plain merge, after a path or merge of its depth", timing.merge, 6)
        timing.ask("plain merge, after a path or merge of its depth", timing.merge, 6)
    print("\n| zoo, quickstart items | median ms |")
    print("|---|---|")
    for what, seconds in timing.spent.items():
        print(f"| {what} | {1000 * statistics.median(seconds):.0f} |")


# (c) what candidates have in common


@dataclass(frozen=True, kw_only=True)
class Space:
    """A way to spell stacks in genes from 0 to 1, and where a search begins."""

    label: str
    start: tuple[float, ...]
    decode: Callable[[Genes], Stack]


def slots(layers: int, *, scales: bool, repeats: int = 2) -> Space:
    """Return the paper's space (https://arxiv.org/abs/2403.13187): all layers laid out, each in or out."""
    laid_out = [(model, layer) for _ in range(repeats) for model in MODELS for layer in range(layers)]
    inside = tuple(0.75 if place < layers else 0.25 for place in range(len(laid_out)))

    def decode(genes: Genes) -> Stack:
        on, by = genes[: len(laid_out)], genes[len(laid_out) :]
        chosen = [place for place in range(len(laid_out)) if on[place] > 0.5]
        return tuple((*laid_out[place], float(0.5 + by[place]) if scales else 1.0) for place in chosen)

    label = f"slots ({len(laid_out)}), {'a scale each' if scales else 'no scales'}"
    return Space(label=label, start=inside + ((0.5,) * len(laid_out) if scales else ()), decode=decode)


def blocks(layers: int, runs: int) -> Space:
    """Return a space of runs of layers, each taken 0, 1 or 2 times from either model."""
    edges = [layers * run // runs for run in range(runs + 1)]

    def decode(genes: Genes) -> Stack:
        counts = np.minimum((genes * 3).astype(int), 2).reshape(runs, len(MODELS))
        return tuple(
            (model, layer, 1.0)
            for run in range(runs)
            for model, count in zip(MODELS, counts[run], strict=True)
            for _ in range(count)
            for layer in range(edges[run], edges[run + 1])
        )

    return Space(label=f"blocks ({runs} runs)", start=(0.5, 1 / 6) * runs, decode=decode)


def candidates(space: Space, budget: int, sigma: float, seed: int) -> Iterator[Stack]:
    """Yield what CMA-ES asks for as it closes in on a hidden point near its start."""
    import cma

    target = np.clip(np.random.default_rng(seed).normal(space.start, 0.3), 0, 1)
    options = {"bounds": [0, 1], "seed": seed + 1, "verbose": -9}
    search = cma.CMAEvolutionStrategy(list(space.start), sigma, options)
    while True:
        asked = search.ask()
        for genes in asked:
            if budget == 0:
                return
            if stack := space.decode(np.asarray(genes)):
                budget -= 1
                yield stack
        search.tell(asked, [float(np.square(genes - target).sum()) for genes in asked])


@dataclass(frozen=True, kw_only=True)
class Saving:
    """What a cache of the prefixes of the last candidates saves, and how many it keeps."""

    share: float
    of_new: float
    again: float
    kept: float


def saving(stacks: Sequence[Stack], last: int) -> Saving:
    """Return the share of layers whose whole prefix is that of one of the `last` candidates.

    `of_new` leaves out candidates that were there before as a whole, whose scores need no layers at all;
    `kept` is how many hidden states there are to keep, on average.
    """
    known: dict[Hashable, int] = {}
    prefixes = [_prefixes(stack, known) for stack in stacks]
    saved, new_saved, total, new_total, again, kept = 0, 0, 0, 0, 0, 0
    for number, own in enumerate(prefixes):
        held = {each for earlier in prefixes[max(0, number - last) : number] for each in earlier}
        common = sum(each in held for each in own)
        repeated = stacks[number] in stacks[:number]
        saved, total, again, kept = saved + common, total + len(own), again + repeated, kept + len(held)
        if not repeated:
            new_saved, new_total = new_saved + common, new_total + len(own)
    count = len(stacks)
    return Saving(share=saved / total, of_new=new_saved / new_total, again=again / count, kept=kept / count)


def _prefixes(stack: Stack, known: dict[Hashable, int]) -> list[int]:
    """Return a number for each prefix; they begin with the embedding, that of the first layer's model."""
    found = []
    above: Hashable = stack[0][0]
    for step in stack:
        above = known.setdefault((above, step), len(known))
        found.append(above)
    return found


def print_savings(layers: int, budget: int, seeds: int, state: float) -> None:
    """Print what a cache would save; `state` is the bytes of the hidden states after a layer."""
    spaces = [slots(layers, scales=True), slots(layers, scales=False)]
    spaces += [blocks(layers, runs) for runs in (3, 4, 6)]
    print("\n| space | step | last | layers saved | of new candidates | candidates again | states | GB |")
    print("|---|---|---|---|---|---|---|---|", flush=True)
    for space in spaces:
        for sigma in (0.3, 0.1):
            runs = [list(candidates(space, budget, sigma, seed)) for seed in range(seeds)]
            for last in (1, 8, budget):
                found = [saving(run, last) for run in runs]
                share, of_new, again, kept = (
                    statistics.mean(getattr(each, key) for each in found)
                    for key in ("share", "of_new", "again", "kept")
                )
                among = last if last < budget else "all"
                sizes = f"{again:.0%} | {kept:.0f} | {kept * state / 1e9:.1f}"
                print(f"| {space.label} | {sigma} | {among} | {share:.0%} | {of_new:.0%} | {sizes} |")


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=("memory", "time", "prefixes"), default=None)
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--budget", type=int, default=200)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--child", nargs=2, metavar=("FOLDER", "SCALES"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.child:
        folder, scales = asked.child
        for found in memory_of(Path(folder), asked.layers, scaled=scales == "random"):
            print(json.dumps(found), flush=True)
        return
    parts = asked.parts or ("memory", "time", "prefixes")
    if "memory" in parts:
        print_memory(Shape(hidden=1024, inner=2816, layers=asked.layers, vocabulary=32000))
    if "time" in parts:
        print_times(asked.rounds)
    if "prefixes" in parts:
        # 180 items of 256 tokens, a width of 4096, two bytes each
        print_savings(asked.layers, asked.budget, asked.seeds, 180 * 256 * 4096 * 2)


if __name__ == "__main__":
    main()
