"""Where a warm worker's time goes as it scores one candidate of the quickstart after another.

A candidate is identified, then scored on all search items, look by look, in this process and without Ray, for
a task of each kind. Forward passes and merges are what must be done; the rest is told by what it is. A
candidate's scores are held to `lm_eval.simple_evaluate`. Time is the processor's, of which one thread takes
as much as of the clock unless others take its place; with a GPU it is the clock's, and each part waits for
what it began there. With `--size`, random Llamas take the place of the zoo's models.
"""

from __future__ import annotations

import argparse
import functools
import logging
import random
import shutil
import statistics
import tempfile
import time
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lm_eval
import torch
import transformers
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from benchmarks.memory import MODELS, write_models
from benchmarks.merging import SHAPES
from evomerge.archive.record import RunRecord
from evomerge.checkpoints.locate import ZOO
from evomerge.controller.search import Options, check_space
from evomerge.evaluate import evaluator as evaluating
from evomerge.evaluate import harness, identity
from evomerge.evaluate.evaluator import Evaluator, device_named
from evomerge.evaluate.task_library import TaskLibrary
from evomerge.recipe import Recipe
from evomerge.space.load import read_space
from evomerge.types import Identified, Scored

SPACE = Path("search_spaces/quickstart.yaml")
KINDS = {
    "multiple_choice": ("math_b", "acc"),
    "loglikelihood": ("word_b", "perplexity"),
    "loglikelihood_rolling": ("stories_b", "word_perplexity"),
    "generate_until": ("math_b_gen", "exact_match"),
}
FORWARD, MERGE, OTHER = "forward", "merge", "other"
PARTS: tuple[tuple[Any, str, str], ...] = (
    (Evaluator, "_build", MERGE),
    (identity, "weight_digest", "digest"),
    (identity.Identification, "of", "fingerprint"),
    (harness, "_respond", "requests"),
    (harness.Answers, "read", "reading"),
)
NAMES = (FORWARD, MERGE, *(label for _, _, label in PARTS if label != MERGE), OTHER)


@dataclass
class Clock:
    """Seconds by what they were spent on; what happens inside of something else is not counted there, too."""

    spent: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    _inside: list[str] = field(default_factory=list)
    _since: float = 0.0

    @contextmanager
    def within(self, label: str) -> Iterator[None]:
        """Count the block's time as `label`."""
        self._turn()
        self._inside.append(label)
        try:
            yield
        finally:
            self._turn()
            self._inside.pop()

    def _turn(self) -> None:
        now = seconds_now()
        if self._inside:
            self.spent[self._inside[-1]] += now - self._since
        self._since = now

    def timed(self, label: str, act: Callable[..., Any]) -> Callable[..., Any]:
        """Return `act`, whose time is counted as `label`."""

        @functools.wraps(act)
        def watched(*args: Any, **kwargs: Any) -> Any:
            with self.within(label):
                return act(*args, **kwargs)

        return watched


def seconds_now() -> float:
    """Return the processor's seconds; where there is a GPU the clock's, once that has done its work."""
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


@contextmanager
def watched(clock: Clock) -> Iterator[None]:
    """Have the parts of an evaluator timed, and the forward pass of the zoo's models."""
    places = (*PARTS, (transformers.LlamaForCausalLM, "forward", FORWARD))
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in places]
    for owner, name, label in places:
        setattr(owner, name, clock.timed(label, getattr(owner, name)))
    try:
        yield
    finally:
        for owner, name, was in before:
            setattr(owner, name, was)


def as_sources(folder: Path) -> dict[str, Any]:
    """Give random Llamas the zoo's tokenizer and return what a space says of them."""
    for name in MODELS:
        for file in ("tokenizer.json", "tokenizer_config.json"):
            shutil.copy(ZOO / "models" / "base" / file, folder / name / file)
    sources = dict(zip(("base", "math", "lang"), (str(folder / name) for name in MODELS), strict=True))
    return {"sources": sources, "dtype": "bfloat16"}


def record_of(task: str, metric: str, others: dict[str, Any]) -> RunRecord:
    """Return the quickstart's record with another objective and `others` of its keys."""
    changes = others | {
        "objectives": [{"task": task, "metric": metric}],
        "items": {"search": 200, "select": 100, "report": 300},  # some tasks have 600
    }
    return check_space(read_space(SPACE, changes), options=Options())


def recipes(record: RunRecord, count: int) -> list[Recipe]:
    """Return different candidates, drawn at random."""
    rng = random.Random(0)
    points = ({gene.name: gene.at(rng.random()) for gene in record.genome.genes} for _ in range(count))
    return [record.genome.decode(point) for point in points]


def go_through(evaluator: Evaluator, recipe: Recipe, looks: int) -> None:
    """Do with a candidate what a search does with one that is never given up."""
    who = evaluator.identify(recipe, screen=False)
    assert isinstance(who, Identified), who
    for look in range(looks):
        scored = evaluator.evaluate(recipe, look=look)
        assert isinstance(scored, Scored), scored


def profile(record: RunRecord, count: int) -> tuple[list[float], Clock]:
    """Return each warm candidate's seconds, and what all of them were spent on."""
    brief = record.brief()
    evaluator = Evaluator(brief)
    first, second, *others = recipes(record, count + 2)
    for recipe in (first, second):
        go_through(evaluator, recipe, len(brief.looks))
    clock, seconds = Clock(), []
    with watched(clock):
        for recipe in others:
            started = seconds_now()
            with clock.within(OTHER):
                go_through(evaluator, recipe, len(brief.looks))
            seconds.append(seconds_now() - started)
    evaluator.close()
    return seconds, clock


def agreement(record: RunRecord) -> float:
    """Return by how much the scores of a candidate differ from lm-eval's own; all items are asked at once."""
    brief = replace(record.brief(), looks=())
    [recipe] = recipes(record, 1)
    evaluator = Evaluator(brief)
    scored = evaluator.evaluate(recipe)
    assert isinstance(scored, Scored), scored
    built = evaluator._build(recipe)
    [measure] = brief.measures
    task = TaskLibrary(Path(brief.tasks or ""), few_shot=None, seed=0).load(measure.task)
    asked = sorted(task.facts.items.index(item) for item in brief.items[measure.task]["search"])
    with built.tokenizer.placed() as folder:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    theirs = lm_evals_own(built.model, tokenizer, measure.task, asked, brief.batch_size)
    evaluator.close()
    return float(abs(scored.scores[measure.name] - theirs[f"{measure.metric},{measure.filter}"]))


def lm_evals_own(model: Any, tokenizer: Any, task: str, asked: Sequence[int], batch_size: int) -> Any:
    """Return what `lm_eval.simple_evaluate` finds on some items of a task of the zoo."""
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=batch_size, softmax_dtype="float32")
    found = lm_eval.simple_evaluate(
        model=lm,
        tasks=[task],
        task_manager=TaskManager(include_path=str(ZOO / "tasks"), include_defaults=False),
        samples={task: list(asked)},
        bootstrap_iters=0,
    )
    return found["results"][task]


def main() -> None:
    """Parse what is asked, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--candidates", type=int, default=20, help="different ones, after two to get warm")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--size", choices=SHAPES, help="of random Llamas instead of the zoo's models")
    parser.add_argument("--folder", type=Path, help="random Llamas that `write_models` wrote")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")  # of simple_evaluate
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    evaluating.quiet_transformers()
    with tempfile.TemporaryDirectory() as temporary:
        if asked.size:
            write_models(Path(temporary), SHAPES[asked.size], device_named("auto").type)
        folder = asked.folder or (Path(temporary) if asked.size else None)
        print_table(asked.kinds, asked.candidates, as_sources(folder) if folder else {})


def print_table(kinds: Sequence[str], candidates: int, others: dict[str, Any]) -> None:
    """Profile a task of each kind and print a line for each."""
    columns = ["task", "ms per candidate", *NAMES, "forward + merge", "per minute", "off lm-eval by"]
    print(f"| {' | '.join(columns)} |")
    print(f"|{'---|' * len(columns)}")
    for kind in kinds:
        task, metric = KINDS[kind]
        record = record_of(task, metric, others)
        seconds, clock = profile(record, candidates)
        all_of_it = sum(clock.spent.values())
        shares = [clock.spent[name] / all_of_it for name in NAMES]
        middle = statistics.median(seconds)
        print(
            f"| {kind} ({task}) | {1000 * middle:.0f} | {' | '.join(f'{share:.1%}' for share in shares)} "
            f"| {shares[0] + shares[1]:.1%} | {60 / middle:.0f} | {agreement(record):.2g} |",
            flush=True,
        )


if __name__ == "__main__":
    main()
