"""The evaluator: sources mapped, tasks built, one model resident; recipes in, scores out."""

from __future__ import annotations

import functools
import logging
import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from lm_eval.api.model import LM

from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.models import open_models
from evomerge.checkpoints.tensors import open_library
from evomerge.checkpoints.tokenizer import TokenizerFiles, words_digest
from evomerge.errors import EvaluationError, EvomergeError
from evomerge.evaluate.brief import Brief
from evomerge.evaluate.identity import Encode, Identification, reference_recipe
from evomerge.evaluate.looks import extended
from evomerge.evaluate.scorer import Scorer
from evomerge.evaluate.task_library import TaskLibrary
from evomerge.merge.memory import ResidentModel
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Recipe
from evomerge.types import Evaluation, Failed, Identified, ItemScores, Scored, Split

_log = logging.getLogger(__name__)

_FOR_ACTIVATIONS = 0.25
"""Share of a GPU's memory that no source tensor takes: activations, logits, blocks in float32."""


@dataclass(frozen=True, kw_only=True)
class _Built:
    """The resident model, and which recipe's it is."""

    key: str
    model: Any
    tokenizer: TokenizerFiles
    seconds: float


class Evaluator:
    """Builds and scores one recipe after another in one process, on one device."""

    def __init__(self, brief: Brief) -> None:
        only_compute(brief.threads)
        self._brief = brief
        self._checkpoints = open_models(brief.checkpoints, brief.adapts, allow_pickle=brief.allow_pickle)
        self._library = open_library(self._checkpoints, self._checkpoints)
        device = device_named(brief.device)
        self._library.keep_on(device, room_for_sources(device, self._checkpoints.values()))
        self._resident = ResidentModel(self._library, device=device)
        self._device = device_label(brief.device)
        self._scoring = ItemScoring(brief)
        self._built: _Built | None = None
        self._identification: Identification | None = None

    def evaluate(self, recipe: Recipe, split: Split = "search", look: int | None = None) -> Evaluation:
        """Return the recipe's scores on the items of `split`, or why there are none.

        `look` asks for one part of the items only; that of a model that is still there costs no merge.
        """
        started = time.monotonic()
        try:
            built = self._build(recipe)
            scored = self._scoring.score(built.model, built.tokenizer, split, look)
        except EvomergeError as error:  # anything else is our bug: let it surface
            return Failed(reason=str(error), seconds=time.monotonic() - started)
        return replace(scored, merge_seconds=built.seconds, device=self._device)

    def identify(self, recipe: Recipe, *, screen: bool) -> Identified | Failed:
        """Return who the recipe's model is, or why there is none; `screen` refuses one that only babbles.

        The model stays, so that scoring it next costs no merge.
        """
        started = time.monotonic()
        try:
            known = self._identification or self._begin_identification(recipe)
            built = self._build(recipe)
            encode, words = self._scoring.words_of(built.model, built.tokenizer)
            return known.of(built.model, encode, words, merge_seconds=built.seconds, screened=screen)
        except EvomergeError as error:
            return Failed(reason=str(error), seconds=time.monotonic() - started)

    def _begin_identification(self, recipe: Recipe) -> Identification:
        """Return what tells models apart, by fingerprints where the first source can be built to go by.

        It is built as it is, in the dtype of `recipe`, and takes the place of the model that is there.
        """
        self._identification = Identification(
            self._scoring.search_prompts(),
            seed=self._brief.seed,
            batch_size=self._brief.batch_size,
            device=self._device,
        )
        try:
            built = self._build(reference_recipe(recipe, list(self._checkpoints)))
            self._identification.begin(built.model, *self._scoring.words_of(built.model, built.tokenizer))
        except EvomergeError as error:
            _log.warning("models are not compared by what they expect, as the first source fails: %s", error)
        return self._identification

    def _build(self, recipe: Recipe) -> _Built:
        """Return the merged model; the one built last is there already."""
        if self._built is not None and self._built.key == recipe.key:
            return replace(self._built, seconds=0.0)
        started = time.monotonic()
        self._built = None
        plan = compile_plan(recipe, self._checkpoints)
        if not self._resident.fits(plan):
            self._scoring.forget_model()
        model = self._resident.load(plan)
        assert plan.tokenizer is not None  # plans of recipes have one
        seconds = time.monotonic() - started
        self._built = _Built(key=recipe.key, model=model, tokenizer=plan.tokenizer, seconds=seconds)
        return self._built

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

    def score(self, model: Any, tokenizer: TokenizerFiles, split: Split, look: int | None = None) -> Scored:
        """Return the model's score per measure and the items behind them, as `score_by` does."""
        return self.score_by(self._scorer_for(model, tokenizer), split, look)

    def score_by(self, lm: LM, split: Split, look: int | None = None) -> Scored:
        """Return the score per measure of what `lm` answers and the items behind them, of one look or of all.

        Raises `EvaluationError` if a score is not finite, or there is nothing to ask.
        """
        found: Scored | None = None
        for part in range(self._looks(split)) if look is None else (look,):
            found = extended(found, self._part(lm, split, part), self._brief.measures)
        if found is None or not found.scores:
            raise EvaluationError(f"there are no {split} items to ask")
        _check_finite(found.scores)
        return found

    def search_prompts(self) -> list[list[str]]:
        """Return what a model reads before it answers each search item, a list for each task."""
        searched = ((name, self._brief.items[name]["search"]) for name in self._tasks)
        return [self._tasks[name].prompts(items) for name, items in searched if items]

    def words_of(self, model: Any, tokenizer: TokenizerFiles) -> tuple[Encode, str]:
        """Return how texts are encoded in the words of `tokenizer`, and a digest of these."""
        return self._scorer_for(model, tokenizer).tok_encode, self._words(tokenizer)

    def _looks(self, split: Split) -> int:
        return len(self._brief.looks) if split == "search" and self._brief.looks else 1

    def _part(self, lm: LM, split: Split, look: int) -> Scored:
        started = time.monotonic()
        scores: dict[str, float] = {}
        items: list[ItemScores] = []
        with torch.inference_mode():
            for name, task in self._tasks.items():
                asked, order = self._brief.asked(name, split), self._brief.parts(name, split)[look]
                if not asked or not order:  # lm-eval would take no items for all
                    continue
                answers = task.answer(lm, order)
                for measure in asked:
                    scores[measure.name], found = answers.read(measure, order)
                    items.append(found)
        _check_finite(scores)
        seconds = time.monotonic() - started
        return Scored(scores=scores, items=tuple(items), merge_seconds=0.0, score_seconds=seconds, device="")

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


def room_for_sources(device: torch.device, sources: Iterable[Checkpoint]) -> int:
    """Return how many bytes of source tensors may stay on a device beside a merged model and its activations.

    None on a CPU: there the page cache holds the files.
    """
    if device.type != "cuda":
        return 0
    free, whole = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # torch's own to give
    model = max(sum(spec.nbytes for spec in source.specs.values()) for source in sources)
    return max(0, int(free - model - _FOR_ACTIVATIONS * whole))


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


def _check_finite(scores: Mapping[str, float]) -> None:
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
