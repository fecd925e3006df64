"""What the zoo's models and plain merges of them score on every task: the tables of docs/concepts/zoo.md.

python benchmarks/zoo.py [--zoo FOLDER] [--dtype bfloat16]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from evomerge.checkpoints.locate import ZOO
from evomerge.evaluate.brief import Brief
from evomerge.evaluate.evaluator import Evaluator
from evomerge.evaluate.task_library import TaskLibrary
from evomerge.recipe import Group, Merge, ModelRef, Recipe
from evomerge.types import Measure, Scored

EXPERTS = ("math", "lang", "logic", "poor")
CHOICE = tuple((f"{subject}_{language}", "acc") for subject in ("math", "lang", "logic") for language in "ab")
OTHERS = (
    ("math_a_gen", "exact_match"),
    ("math_b_gen", "exact_match"),
    ("word_b", "acc"),
    ("word_b", "perplexity"),
    ("stories_b", "word_perplexity"),
)
EVERYTHING = ("attn", "mlp", "rest", "embed", "head")


def recipes() -> Iterator[tuple[str, Merge]]:
    """Yield the merges worth knowing, by what people call them."""
    for name in ("base", *EXPERTS):
        yield name, Merge(method="linear", sources=(name,))
    pair = EXPERTS[:2]
    yield "uniform average", Merge(method="linear", sources=pair)
    for weight in (0.7, 1.0, 1.5):
        yield f"task arithmetic, {weight:g} / {weight:g}", summed(pair, weight)
    yield (
        "math with the embeddings and head of lang",
        Merge(
            method="linear",
            sources=pair,
            groups=(
                Group(modules=EVERYTHING[3:], params={"weight": {"math": 0.0, "lang": 1.0}}),
                Group(modules=EVERYTHING[:3], params={"weight": {"math": 1.0, "lang": 0.0}}),
            ),
        ),
    )
    yield "average of all four experts", Merge(method="linear", sources=EXPERTS)
    yield "task arithmetic with all four, 1 each", summed(EXPERTS, 1.0)


def summed(sources: tuple[str, ...], weight: float) -> Merge:
    """Return plain task arithmetic with one weight for all."""
    return Merge(method="task_arithmetic", base="base", sources=sources, params={"weight": weight})


def evaluator(zoo: Path, asked: Sequence[tuple[str, str]]) -> Evaluator:
    """Return an evaluator of the zoo on every item of the tasks; its measures are named `task metric`."""
    library = TaskLibrary(zoo / "tasks", few_shot=None, seed=0)
    facts = {task: library.load(task).facts for task, _ in asked}
    brief = Brief(
        checkpoints={name: str(zoo / "models" / name) for name in ("base", *EXPERTS)},
        tasks=str(zoo / "tasks"),
        measures=tuple(
            Measure(
                name=f"{task} {metric}",
                task=task,
                metric=metric,
                filter=facts[task].filters[0],
                higher_is_better=facts[task].metrics[metric],
            )
            for task, metric in asked
        ),
        items={task: {"search": found.items} for task, found in facts.items()},
        batch_size=64,
        threads=1,
        few_shot=None,
        seed=0,
    )
    return Evaluator(brief)


def rows(
    zoo: Path, asked: Sequence[tuple[str, str]], dtype: str
) -> Iterator[tuple[str, Mapping[str, float]]]:
    """Yield each merge's scores by measure."""
    scorer = evaluator(zoo, asked)
    models = {name: ModelRef(source=str(zoo / "models" / name)) for name in ("base", *EXPERTS)}
    for label, merge in recipes():
        result = scorer.evaluate(Recipe(models=models, merges={"merged": merge}, dtype=dtype))
        assert isinstance(result, Scored), result
        yield label, result.scores
    scorer.close()


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--zoo", type=Path, default=ZOO, help="a folder made by `evomerge zoo build`")
    parser.add_argument("--dtype", default="float32", help="of the merged models")
    arguments = parser.parse_args()
    zoo = arguments.zoo.absolute()
    for asked in (CHOICE, OTHERS):
        names = [f"{task} {metric}" for task, metric in asked]
        print(f"\n| model or recipe | {' | '.join(names)} |\n|---|{'---|' * len(names)}")
        for label, scores in rows(zoo, asked, arguments.dtype):
            print(f"| {label} | {' | '.join(number(scores[name]) for name in names)} |", flush=True)


def number(value: float) -> str:
    """Return a share with three digits, a perplexity with three significant ones."""
    return f"{value:.3f}".lstrip("0") if value < 1 else f"{value:.3f}" if value == 1 else f"{value:.3g}"


if __name__ == "__main__":
    main()
