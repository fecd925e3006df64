"""Our use of lm-eval gives lm-eval's own numbers, to the last digit, on any subset of items."""

from __future__ import annotations

import math
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
import pytest
from lm_eval.api.task import ALL_OUTPUT_TYPES
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evomerge.checkpoints.locate import ZOO
from evomerge.errors import EvaluationError, TaskError
from evomerge.evaluate.harness import ItemTask, Scorer, TaskLibrary
from evomerge.types import Measure

TASKS = ZOO / "tasks"
KINDS = {
    "math_b": ("acc", "multiple_choice"),
    "word_b": ("perplexity", "loglikelihood"),
    "math_a_gen": ("exact_match", "generate_until"),
    "stories_b": ("word_perplexity", "loglikelihood_rolling"),
}


def prepared(name: str) -> ItemTask:
    return TaskLibrary(TASKS, few_shot=None, seed=0).load(name)


def measure(task: ItemTask, metric: str) -> Measure:
    facts = task.facts
    return Measure(
        name=facts.name,
        task=facts.name,
        metric=metric,
        filter=facts.filters[0],
        higher_is_better=facts.metrics[metric],
    )


def lm_evals_own(model: Any, tokenizer: Any, name: str, positions: Sequence[int]) -> dict[str, Any]:
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16, softmax_dtype="float32")
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model=lm,
        tasks=[name],
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
        samples={name: sorted(positions)},
        bootstrap_iters=0,
        log_samples=True,
        random_seed=0,
        numpy_random_seed=0,
        torch_random_seed=0,
        fewshot_random_seed=0,
    )
    return found


@pytest.mark.filterwarnings("ignore")  # of simple_evaluate, not of ours
@pytest.mark.parametrize("name", KINDS)
def test_scores_equal_simple_evaluate(math_expert: tuple[Any, Any], name: str) -> None:
    metric = KINDS[name][0]
    task = prepared(name)
    positions = list(range(3, 60, 4))
    items = [task.facts.items[position] for position in positions]
    asked = measure(task, metric)
    score, scored = task.answer(Scorer(*math_expert, batch_size=16), items).read(asked, items)
    theirs = lm_evals_own(*math_expert, name, positions)
    assert score == theirs["results"][name][f"{metric},{asked.filter}"]
    by_hash = {
        sample["doc_hash"]: sample[metric]
        for sample in theirs["samples"][name]
        if sample["filter"] == asked.filter
    }
    assert list(by_hash) == items  # our item hashes are lm-eval's
    for item, value, weight in zip(
        scored.items, scored.scores, scored.weights or [None] * len(items), strict=True
    ):
        expected = by_hash[item]
        assert (value, weight) == (tuple(expected) if weight is not None else (expected, None))


def test_every_request_type_of_lm_eval_is_covered() -> None:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    for name, (_, kind) in KINDS.items():
        assert kind == manager.load([name])["tasks"][name].OUTPUT_TYPE
    assert {kind for _, kind in KINDS.values()} == set(ALL_OUTPUT_TYPES)


def test_a_metric_of_all_items_together_has_no_score_per_item(
    math_expert: tuple[Any, Any], tmp_path: Path
) -> None:
    """MCC of an item is (right, predicted): no (score, weight), even where both are plain numbers."""
    shutil.copytree(TASKS, tmp_path / "tasks")
    file = tmp_path / "tasks" / "math_b.yaml"
    text = file.read_text().replace("metric: acc", "metric: mcc").replace("mean", "matthews_corrcoef")
    file.write_text(text + "process_results: !function data.pair\n")
    with (tmp_path / "tasks" / "data.py").open("a") as functions:
        functions.write("\n\ndef pair(doc, results):\n    return {'mcc': (doc['gold'], len(results) % 2)}\n")
    task = TaskLibrary(tmp_path / "tasks", few_shot=None, seed=0).load("math_b")
    items = task.facts.items[:20]
    score, scored = task.answer(Scorer(*math_expert, batch_size=16), items).read(measure(task, "mcc"), items)
    assert -1 <= score <= 1
    assert all(math.isnan(value) for value in scored.scores)
    assert scored.weights is None


def test_order_of_items_follows_the_caller_and_not_the_data_set(
    math_expert: tuple[Any, Any],
) -> None:
    task = prepared("math_b")
    asked = measure(task, "acc")
    items = list(task.facts.items[:20])
    scorer = Scorer(*math_expert, batch_size=16)
    forward, ahead = task.answer(scorer, items).read(asked, items)
    backward, behind = task.answer(scorer, items[::-1]).read(asked, items[::-1])
    assert forward == backward
    assert dict(zip(ahead.items, ahead.scores, strict=True)) == dict(
        zip(behind.items, behind.scores, strict=True)
    )
    assert len(set(ahead.scores)) == 2  # both right and wrong answers, or the test shows nothing


def test_scoring_twice_gives_the_same(math_expert: tuple[Any, Any]) -> None:
    task, scorer = prepared("math_a_gen"), Scorer(*math_expert, batch_size=16)
    items = task.facts.items[:20]
    asked = measure(task, "exact_match")
    first = task.answer(scorer, items).read(asked, items)
    assert task.answer(scorer, items).read(asked, items) == first
    assert first[0] > 0


def test_directions_come_from_the_task() -> None:
    assert prepared("math_b").facts.metrics["acc"] is True
    assert prepared("stories_b").facts.metrics["word_perplexity"] is False


def test_unknown_item_is_refused(math_expert: tuple[Any, Any]) -> None:
    with pytest.raises(TaskError, match="has changed"):
        prepared("math_b").answer(Scorer(*math_expert, batch_size=16), ["0" * 64])


def test_unknown_task_is_refused_with_a_suggestion() -> None:
    with pytest.raises(TaskError, match="Did you mean `math_b`"):
        prepared("mathb")


def test_nan_log_likelihoods_are_no_score(math_expert: tuple[Any, Any]) -> None:
    model, tokenizer = math_expert
    task = prepared("math_b")
    weight = model.lm_head.weight
    kept = weight.detach().clone()
    try:
        weight.data.fill_(float("nan"))
        with pytest.raises(EvaluationError, match="NaN"):
            task.answer(Scorer(model, tokenizer, batch_size=16), task.facts.items[:4])
    finally:
        weight.data.copy_(kept)


SCORING = """
import sys
from pathlib import Path
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar
from evomerge.evaluate.harness import Scorer, TaskLibrary
disable_progress_bar()
model = AutoModelForCausalLM.from_pretrained(sys.argv[1])
scorer = Scorer(model, AutoTokenizer.from_pretrained(sys.argv[1]), batch_size=16)
library = TaskLibrary(Path(sys.argv[2]), few_shot=None, seed=0)
for name in sys.argv[3:]:
    task = library.load(name)
    task.answer(scorer, task.facts.items[:4])
"""


def test_nothing_is_shown_while_scoring() -> None:
    bars = {key: value for key, value in os.environ.items() if key != "TQDM_DISABLE"}
    done = subprocess.run(
        [sys.executable, "-c", SCORING, ZOO / "models" / "math", TASKS, *KINDS],
        capture_output=True, text=True, check=True, env=bars,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("", "")
