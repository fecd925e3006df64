"""By how much a multiple choice was decided, on the scale that its metric decides on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from lm_eval.api.task import Task


def has_margins(task: Task) -> bool:
    """Whether lm-eval itself says which option of the task's items is right."""
    return task.OUTPUT_TYPE == "multiple_choice" and not callable(task.get_config("process_results"))


def margin(task: Task, doc: Any, responses: Sequence[tuple[float, bool]], metric: str) -> float:
    """Return by how much the best right option exceeds the best wrong one, in log-likelihood.

    `acc_norm` and `acc_bytes` divide each by the option's characters or bytes, and `acc_mutual_info` takes
    off what the option has without the question, as `ConfigurableTask.process_results` does. Plus or minus
    infinity where all options are right, or none is.
    """
    options = task.doc_to_choice(doc)
    scores = _compared([likelihood for likelihood, _ in responses], options, metric)
    right = _right(task, doc, options)
    best = max((scores[i] for i in right), default=-math.inf)
    return best - max((score for i, score in enumerate(scores) if i not in right), default=-math.inf)


def _compared(likelihoods: Sequence[float], options: Sequence[str], metric: str) -> list[float]:
    """Return what `metric` compares the options by.

    Where it needs them, behind the options' likelihoods stand those without the question.
    """
    asked, unasked = likelihoods[: len(options)], likelihoods[len(options) :]
    if metric == "acc_norm":
        return [_per(each, len(option)) for each, option in zip(asked, options, strict=True)]
    if metric == "acc_bytes":
        return [_per(each, len(option.encode())) for each, option in zip(asked, options, strict=True)]
    if metric == "acc_mutual_info":
        return [each - alone for each, alone in zip(asked, unasked, strict=True)]
    return list(asked)


def _per(likelihood: float, length: int) -> float:
    return likelihood / length if length else -math.inf


def _right(task: Task, doc: Any, options: Sequence[str]) -> set[int]:
    """Return the positions of the right options; those that lead nowhere are left out."""
    gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
    if isinstance(gold, str):
        gold = options.index(gold) if gold in options else -1
    return {each for each in (gold if isinstance(gold, list) else [gold]) if 0 <= each < len(options)}
