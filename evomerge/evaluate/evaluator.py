"""The evaluator: sources mapped, tasks built, one model resident; recipes in, scores out."""

from __future__ import annotations

import functools
import math
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from evomerge.checkpoints.models import open_models
from evomerge.checkpoints.tensors import open_library
from evomerge.checkpoints.tokenizer import TokenizerFiles, words_digest
from evomerge.errors import EvaluationError, EvomergeError
from evomerge.evaluate.brief import Brief
from evomerge.evaluate.harness import Scorer, TaskLibrary
from evomerge.merge.memory import ResidentModel
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Recipe
from evomerge.types import Evaluation, Failed, ItemScores, Scored, Split


class Evaluator:
    """Builds and scores one recipe after another in one process, on one device."""

    def __init__(self, brief: Brief) -> None:
        only_compute(brief.threads)
        self._brief = brief
        self._checkpoints = open_models(brief.checkpoints, brief.adapts, allow_pickle=brief.allow_pickle)
        self._library = open_library(self._checkpoints, self._checkpoints)
        self._resident = ResidentModel(self._library, device=device_named(brief.device))
        self._device = device_label(brief.device)
        self._scoring = ItemScoring(brief)

    def evaluate(self, recipe: Recipe, split: Split = "search") -> Evaluation:
        """Return the recipe's scores on the items of `split`, or why there are none."""
        started = time.monotonic()
        try:
            plan = compile_plan(recipe, self._checkpoints)
            if not self._resident.fits(plan):
                self._scoring.forget_model()
            model = self._resident.load(plan)
            merged = time.monotonic()
            assert plan.tokenizer is not None  # plans of recipes have one
            scores, items = self._scoring.score(model, plan.tokenizer, split)
        except EvomergeError as error:  # anything else is our bug: let it surface
            return Failed(reason=str(error), seconds=time.monotonic() - started)
        return Scored(
            scores=scores,
            items=items,
            merge_seconds=merged - started,
            score_seconds=time.monotonic() - merged,
            device=self._device,
        )

    def close(self) -> None:
        """Unmap the sources."""
        self._library.close()


class ItemScoring:
    """A brief's tasks, built once, asked of any live model."""

    def __init__(self, brief: Brief) -> None:
        names = dict.fromkeys(measure.task for measure in brief.measures)
        folder = Path(brief.tasks) if brief.tasks else None
        library = TaskLibrary(folder, few_shot=brief.few_shot, seed=brief.seed)
        self._brief = brief
        self._words = functools.cache(words_digest)
        self._tasks = {name: library.load(name) for name in names}
        self._scorers: dict[str, Scorer] = {}

    def score(
        self, model: Any, tokenizer: TokenizerFiles, split: Split
    ) -> tuple[dict[str, float], tuple[ItemScores, ...]]:
        """Return the model's score per measure and the items behind them.

        Raises `EvaluationError` if a score is not finite.
        """
        scorer = self._scorer_for(model, tokenizer)
        scores: dict[str, float] = {}
        items: list[ItemScores] = []
        with torch.inference_mode():
            for name, task in self._tasks.items():
                asked = self._brief.asked(name, split)
                if not asked:
                    continue
                order = self._brief.items[name][split]
                answers = task.answer(scorer, order)
                for measure in asked:
                    scores[measure.name], found = answers.read(measure, order)
                    items.append(found)
        _check_finite(scores)
        return scores, tuple(items)

    def forget_model(self) -> None:
        """Let go of the model scored last, so that two need not fit; what was tokenised stays."""
        for scorer in self._scorers.values():
            scorer.bind(None)

    def _scorer_for(self, model: Any, tokenizer: TokenizerFiles) -> Scorer:
        """Return what asks `model` in the words of `tokenizer`; the same words are read once."""
        words = self._words(tokenizer)
        if words not in self._scorers:
            with tokenizer.placed() as folder:
                loaded = transformers.AutoTokenizer.from_pretrained(
                    folder, local_files_only=True, trust_remote_code=False
                )
            self._scorers[words] = Scorer(model, loaded, batch_size=self._brief.batch_size)
        self._scorers[words].bind(model)
        return self._scorers[words]


def device_label(name: str) -> str:
    """Return a device's name and, for a GPU, its model."""
    device = device_named(name)
    if device.type == "cuda":
        return f"{device} ({torch.cuda.get_device_name(device)})"
    return str(device)


def device_named(name: str) -> torch.device:
    """Return the torch device; `auto` is the first GPU, or the CPU where there is none."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def _check_finite(scores: dict[str, float]) -> None:
    for name, score in scores.items():
        if not math.isfinite(score):
            raise EvaluationError(f"`{name}` of this candidate is {score}")


def only_compute(threads: int) -> None:
    """Give this process `threads` torch threads and keep transformers from talking."""
    quiet_transformers()
    torch.set_num_threads(threads)


def quiet_transformers() -> None:
    """Keep transformers from talking and from drawing bars."""
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
