"""Our use of lm-eval gives lm-eval's own numbers, to the last digit, on any subset of items."""

from __future__ import annotations

import json
import math
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pytest
import torch
import transformers
from lm_eval.api.task import ALL_OUTPUT_TYPES
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

from evomerge.checkpoints.locate import ZOO
from evomerge.errors import EvaluationError, TaskError
from evomerge.evaluate.harness import ItemTask
from evomerge.evaluate.scorer import Scorer
from evomerge.evaluate.task_library import TaskLibrary
from evomerge.types import Measure

TASKS = ZOO / "tasks"
KINDS = {
    "math_b": "multiple_choice",
    "word_b": "loglikelihood",
    "math_a_gen": "generate_until",
    "stories_b": "loglikelihood_rolling",
}
METRICS = [
    ("math_b", "acc", "mean"),
    ("word_b", "acc", "mean"),
    ("word_b", "perplexity", "perplexity"),
    ("math_a_gen", "exact_match", "mean"),
    ("stories_b", "word_perplexity", "weighted_perplexity"),
    ("stories_b", "byte_perplexity", "weighted_perplexity"),
    ("stories_b", "bits_per_byte", "bits_per_byte"),
]
POSITIONS = [41, 3, 58, 7, 3, 19, 22, 50, 11, 38, 7, 44, 29, 33]  # as no one should ask lm-eval


def prepared(name: str, folder: Path = TASKS) -> ItemTask:
    return TaskLibrary(folder, few_shot=None, seed=0).load(name)


def measure(task: ItemTask, metric: str) -> Measure:
    facts = task.facts
    return Measure(
        name=facts.name,
        task=facts.name,
        metric=metric,
        filter=facts.filters[0],
        higher_is_better=facts.metrics[metric],
        aggregate=facts.aggregates[metric],
    )


def lm_evals_own(
    model: Any, tokenizer: Any, name: str, positions: Sequence[int], folder: Path = TASKS
) -> dict[str, Any]:
    lm = HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16, softmax_dtype="float32")
    found: dict[str, Any] = lm_eval.simple_evaluate(
        model=lm,
        tasks=[name],
        task_manager=TaskManager(include_path=str(folder), include_defaults=False),
        samples={name: sorted(set(positions))},
        bootstrap_iters=0,
        log_samples=True,
        random_seed=0,
        numpy_random_seed=0,
        torch_random_seed=0,
        fewshot_random_seed=0,
    )
    return found


def samples_by_hash(found: dict[str, Any], name: str, filter_name: str) -> dict[str, dict[str, Any]]:
    return {
        sample["doc_hash"]: sample for sample in found["samples"][name] if sample["filter"] == filter_name
    }


@pytest.mark.filterwarnings("ignore")  # of simple_evaluate, not of ours
@pytest.mark.parametrize("name", KINDS)
def test_scores_equal_simple_evaluate(math_expert: tuple[Any, Any], name: str) -> None:
    """Whatever order and repeats the caller has, lm-eval hears of each item once, in the data set's order."""
    task = prepared(name)
    items = list(dict.fromkeys(task.facts.items[position] for position in POSITIONS))
    theirs = lm_evals_own(*math_expert, name, POSITIONS)
    answers = task.answer(Scorer(*math_expert, batch_size=16), items)
    assert list(answers.requests) == [task.facts.items[position] for position in sorted(set(POSITIONS))]
    for metric, aggregate in [(metric, found) for task_name, metric, found in METRICS if task_name == name]:
        asked = measure(task, metric)
        assert asked.aggregate == aggregate
        score, scored = answers.read(asked, items)
        assert score == theirs["results"][name][f"{metric},{asked.filter}"]
        by_hash = samples_by_hash(theirs, name, asked.filter)
        assert set(by_hash) == set(items)  # our item hashes are lm-eval's
        assert scored.items == tuple(items)
        for item, value, weight in zip(
            scored.items, scored.scores, scored.weights or [None] * len(items), strict=True
        ):
            expected = by_hash[item][metric]
            assert (value, weight) == (tuple(expected) if weight is not None else (expected, None))
        assert (scored.weights is None) == (aggregate in ("mean", "perplexity"))
        assert (scored.margins is None) == (name != "math_b")


@pytest.mark.filterwarnings("ignore")  # of simple_evaluate, not of ours
@pytest.mark.parametrize("name", KINDS)
def test_scores_of_another_family_equal_simple_evaluate(math_expert: tuple[Any, Any], name: str) -> None:
    _, tokenizer = math_expert
    config = transformers.GPT2Config(
        vocab_size=len(tokenizer), n_embd=16, n_layer=2, n_head=2, n_positions=64, initializer_range=0.3
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model: Any = transformers.GPT2LMHeadModel(config)
    model.eval()
    task = prepared(name)
    items = [task.facts.items[position] for position in sorted(set(POSITIONS))]
    theirs = lm_evals_own(model, tokenizer, name, POSITIONS)
    answers = task.answer(Scorer(model, tokenizer, batch_size=16), items)
    for metric in [found for task_name, found, _ in METRICS if task_name == name]:
        asked = measure(task, metric)
        assert answers.read(asked, items)[0] == theirs["results"][name][f"{metric},{asked.filter}"]


@pytest.mark.filterwarnings("ignore")  # of simple_evaluate, not of ours
def test_every_item_scores_as_in_simple_evaluate(math_expert: tuple[Any, Any]) -> None:
    """No list of samples here: what lm-eval takes by itself."""
    model, tokenizer = math_expert
    found = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=16, softmax_dtype="float32"),
        tasks=["math_b"], limit=60, bootstrap_iters=0,
        task_manager=TaskManager(include_path=str(TASKS), include_defaults=False),
    )  # fmt: skip
    task = prepared("math_b")
    items = task.facts.items[:60]
    score, _ = task.answer(Scorer(*math_expert, batch_size=16), items).read(measure(task, "acc"), items)
    assert score == found["results"]["math_b"]["acc,none"]


def test_every_request_type_of_lm_eval_is_covered() -> None:
    manager = TaskManager(include_path=str(TASKS), include_defaults=False)
    for name, kind in KINDS.items():
        assert kind == manager.load([name])["tasks"][name].OUTPUT_TYPE
    assert set(KINDS.values()) == set(ALL_OUTPUT_TYPES)


CHOICES = """

def long(doc):
    return [f"{option} desu é" if place % 2 else option for place, option in enumerate(doc["options"])]


def gold(doc):
    return doc["gold"]


def golds(doc):
    return [doc["gold"], (doc["gold"] + 1) % 6]
"""


@pytest.fixture(params=["gold", "golds"])
def choices(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a folder with `math_b` of options of different lengths, one or two of which are right."""
    folder = tmp_path / "tasks"
    shutil.copytree(TASKS, folder)
    with (folder / "data.py").open("a") as functions:
        functions.write(CHOICES)
    file = folder / "math_b.yaml"
    text = file.read_text().replace('"{{options}}"', "!function data.long")
    text = text.replace("doc_to_target: gold", f"doc_to_target: !function data.{request.param}")
    more = ["acc_norm", "acc_bytes", *(["acc_mutual_info"] if request.param == "gold" else [])]
    metric = "  - metric: acc\n    aggregation: mean\n    higher_is_better: true\n"
    assert metric in text
    file.write_text(text.replace(metric, metric + "".join(metric.replace("acc", name) for name in more)))
    return folder


@pytest.mark.filterwarnings("ignore")  # of simple_evaluate, not of ours
def test_margins_are_what_the_metric_decides_on(math_expert: tuple[Any, Any], choices: Path) -> None:
    positions = list(range(40))
    task = prepared("math_b", choices)
    items = [task.facts.items[position] for position in positions]
    theirs = lm_evals_own(*math_expert, "math_b", positions, choices)
    by_hash = samples_by_hash(theirs, "math_b", "none")
    answers = task.answer(Scorer(*math_expert, batch_size=16), items)
    seen = set()
    for metric in task.facts.metrics:
        score, scored = answers.read(measure(task, metric), items)
        assert score == theirs["results"]["math_b"][f"{metric},none"]
        assert scored.margins is not None
        for item, value, margin in zip(items, scored.scores, scored.margins, strict=True):
            assert margin == pytest.approx(decided_by(by_hash[item], metric), abs=1e-4)  # options share rows
            assert (value == 1) == (margin > 0)
        seen.add(scored.margins)
        assert 0 < score < 1
    assert len(seen) == len(task.facts.metrics)


def decided_by(sample: dict[str, Any], metric: str) -> float:
    """Return the margin by lm-eval's own answers, with its own formulas."""
    spelled = sample["doc"]["options"]
    spelled = [f"{option} desu é" if place % 2 else option for place, option in enumerate(spelled)]
    values = np.array([float(response[0]) for response in sample["filtered_resps"]])
    values, alone = values[:6], values[6:]
    match metric:
        case "acc_norm":
            values = values / np.array([len(option) for option in spelled])
        case "acc_bytes":
            values = values / np.array([len(option.encode()) for option in spelled])
        case "acc_mutual_info":
            values = values - alone
    target = sample["target"]
    right = [int(each) for each in (target if isinstance(target, list) else [target])]
    return float(values[right].max() - np.delete(values, right).max())


def test_margins_of_options_none_or_all_of_which_are_right(
    math_expert: tuple[Any, Any], tmp_path: Path
) -> None:
    shutil.copytree(TASKS, tmp_path / "tasks")
    with (tmp_path / "tasks" / "data.py").open("a") as functions:
        functions.write("\n\ndef golds(doc):\n    return list(range(6)) if doc['id'][-1] == '0' else [9]\n")
    file = tmp_path / "tasks" / "math_b.yaml"
    file.write_text(file.read_text().replace("doc_to_target: gold", "doc_to_target: !function data.golds"))
    task = prepared("math_b", tmp_path / "tasks")
    items = task.facts.items[:12]
    _, scored = task.answer(Scorer(*math_expert, batch_size=16), items).read(measure(task, "acc"), items)
    assert scored.margins == tuple(math.inf if place in (0, 10) else -math.inf for place in range(12))


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
    assert scored.margins is None  # the task's own functions say what is right
    assert task.facts.aggregates == {"mcc": "other"}


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


@pytest.mark.parametrize("name", KINDS)
def test_templates_are_rendered_for_the_first_candidate_only(
    math_expert: tuple[Any, Any], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, scorer = prepared(name), Scorer(*math_expert, batch_size=16)
    items = task.facts.items[:12]
    asked = measure(task, next(metric for task_name, metric, _ in METRICS if task_name == name))
    first = task.answer(scorer, items).read(asked, items)
    monkeypatch.setattr("lm_eval.utils.apply_template", lambda *_: pytest.fail("rendered again"))
    assert task.answer(scorer, items).read(asked, items) == first


def test_no_items_are_refused(math_expert: tuple[Any, Any]) -> None:
    """To lm-eval an empty list would be the whole task."""
    with pytest.raises(TaskError, match="was asked no item"):
        prepared("math_b").answer(Scorer(*math_expert, batch_size=16), [])


def test_prompts_are_what_the_model_reads_first() -> None:
    task = prepared("math_b")
    items = [task.facts.items[5], task.facts.items[2]]
    lines = (TASKS / "data" / "math_b.jsonl").read_text().splitlines()
    assert task.prompts(items) == [json.loads(lines[5])["prompt"], json.loads(lines[2])["prompt"]]
    stories = prepared("stories_b")
    [first] = stories.prompts(stories.facts.items[:1])
    assert first == json.loads((TASKS / "data" / "stories_b.jsonl").read_text().splitlines()[0])["text"]


def test_strata_are_kinds_and_quarters_by_length() -> None:
    facts = prepared("math_b").facts
    found = Counter(facts.strata)
    assert {label.partition("/")[0] for label in found} == {"gain", "lose", "times"}
    quarters = Counter(label.partition("/")[2] for label in facts.strata)
    assert sorted(quarters) == ["0", "1", "2", "3"]
    assert facts.clusters == ()


@pytest.mark.parametrize(
    ("change", "deterministic"),
    [
        ("do_sample: false", True),
        ("do_sample: true", False),
        ("temperature: 0.0", True),
        ("temperature: 0.7", False),
    ],
)
def test_a_task_that_draws_its_answers_is_told(change: str, *, deterministic: bool, tmp_path: Path) -> None:
    shutil.copytree(TASKS, tmp_path / "tasks")
    file = tmp_path / "tasks" / "math_a_gen.yaml"
    file.write_text(file.read_text().replace("do_sample: false", change))
    assert prepared("math_a_gen", tmp_path / "tasks").facts.deterministic is deterministic


@pytest.mark.parametrize(
    ("name", "before", "after", "same"),
    [
        ("math_b", "version: 1.0", "version: 1.1", True),
        ("math_b", 'doc_to_text: "{{prompt}}"', 'doc_to_text: "Q: {{prompt}}"', False),
        ("math_b", "doc_to_target: gold", "doc_to_target: 0", False),
        ("math_b", 'target_delimiter: " "', 'target_delimiter: ""', False),
        ("math_b", "num_fewshot: 0", "num_fewshot: 1\nfewshot_split: test", False),
        ("math_b_gen", "max_gen_toks: 8", "max_gen_toks: 9", False),
        ("math_b_gen", "kotae = ", "kotae=", False),
        ("math_b_gen", "function: take_first", "function: majority_vote", False),
    ],
)
def test_what_a_task_asks_and_how_it_scores_has_a_digest(
    name: str, before: str, after: str, *, same: bool, tmp_path: Path
) -> None:
    shutil.copytree(TASKS, tmp_path / "tasks")
    file = tmp_path / "tasks" / f"{name}.yaml"
    assert before in file.read_text()
    file.write_text(file.read_text().replace(before, after))
    changed = prepared(name, tmp_path / "tasks").facts.wording
    assert (changed == prepared(name).facts.wording) is same


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
from evomerge.evaluate.scorer import Scorer
from evomerge.evaluate.task_library import TaskLibrary
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
