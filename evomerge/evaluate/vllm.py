"""vLLM as the backend: a candidate is written to memory as a checkpoint, and the engine reloads from there.

Only what vLLM documents is used: `LLM(model=FOLDER)`, then for each candidate
`collective_rpc("reload_weights")`, which reads the folder again into the tensors that are there (its example
`skip_loading_weights_in_engine_init`), and `reset_prefix_cache()`, without which the last candidate's keys
and values would answer for the next. lm-eval's own `VLLM` asks and reads. What is loaded has the bytes of an
export. Written by the documentation of vLLM 0.32 and lm_eval 0.4.13, and never run with vLLM itself, which
was not at hand: `tests/evaluate/test_vllm.py` holds it to a stand-in of the same interface.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import xxhash
from lm_eval.api.model import LM

from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.models import open_models
from evomerge.checkpoints.tokenizer import words_digest
from evomerge.errors import EvaluationError, EvomergeError, RequestError
from evomerge.evaluate.brief import Brief
from evomerge.evaluate.evaluator import ItemScoring, device_label, only_compute
from evomerge.merge.model_folder import check_room, write_model
from evomerge.merge.plan import Plan
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Recipe
from evomerge.types import Evaluation, Failed, Identified, Scored, Split

_MEMORY = Path("/dev/shm")  # noqa: S108 a folder of our own is made in it
_PIECE = 1 << 24


@dataclass(frozen=True, kw_only=True)
class Engine:
    """A running engine: `lm` answers lm-eval's requests by it, `llm` is vLLM's own `LLM`."""

    lm: LM
    llm: Any

    def reload(self) -> None:
        """Read the weights of the engine's folder again."""
        self.llm.collective_rpc("reload_weights")
        self.llm.reset_prefix_cache()


OpenEngine = Callable[[Path, Brief], Engine]


def check_installed() -> None:
    """Raise `RequestError` where there is no vLLM."""
    if importlib.util.find_spec("vllm") is None:
        raise RequestError(
            "`backend: vllm` needs vLLM, which is not installed in this environment: install it "
            "(`pip install vllm`), or leave out `backend`"
        )


def open_engine(folder: Path, brief: Brief) -> Engine:
    """Return an engine of the checkpoint in `folder`, on the devices that vLLM finds."""
    check_installed()
    from lm_eval.models.vllm_causallms import VLLM  # which imports vLLM

    lm = VLLM(pretrained=str(folder), batch_size="auto", seed=brief.seed, trust_remote_code=False)
    return Engine(lm=lm, llm=lm.model)


@dataclass(frozen=True, kw_only=True)
class _Loaded:
    key: str
    digest: str
    seconds: float


class VllmEvaluator:
    """Scores one recipe after another by one vLLM engine, whose weights change and whose form does not.

    It tells who a model is by the bytes of its checkpoint alone: vLLM gives no logits to compare.
    """

    def __init__(self, brief: Brief, *, engine: OpenEngine = open_engine) -> None:
        only_compute(brief.threads)
        self._brief, self._open = brief, engine
        self._device = f"vLLM on {device_label(brief.device)}"
        self._checkpoints: Mapping[str, Checkpoint] = open_models(
            brief.checkpoints, brief.adapts, allow_pickle=brief.allow_pickle
        )
        self._scoring = ItemScoring(brief)
        self._folder = Path(
            tempfile.mkdtemp(prefix="evomerge-vllm-", dir=_MEMORY if _MEMORY.is_dir() else None)
        )
        self._engine: Engine | None = None
        self._form = ""
        self._loaded: _Loaded | None = None

    def evaluate(self, recipe: Recipe, split: Split = "search", look: int | None = None) -> Evaluation:
        """Return the recipe's scores on the items of `split`, or why there are none; as `Evaluator` does."""
        started = time.monotonic()
        try:
            loaded = self._load(recipe)
            assert self._engine is not None  # it has loaded the recipe
            scored = self._scoring.score_by(self._engine.lm, split, look)
        except EvomergeError as error:
            return Failed(reason=str(error), seconds=time.monotonic() - started)
        return replace(scored, merge_seconds=loaded.seconds, device=self._device)

    def identify(self, recipe: Recipe, *, screen: bool) -> Identified | Failed:
        """Return who the recipe's model is, or why there is none; one that only babbles is not told."""
        del screen
        started = time.monotonic()
        try:
            loaded = self._load(recipe)
        except EvomergeError as error:
            return Failed(reason=str(error), seconds=time.monotonic() - started)
        return Identified(
            digest=loaded.digest, fingerprint=(), noise=0.0, device=self._device, merge_seconds=loaded.seconds
        )

    def close(self) -> None:
        """Let the engine go, and the checkpoint it read."""
        self._engine = None
        shutil.rmtree(self._folder, ignore_errors=True)

    def _load(self, recipe: Recipe) -> _Loaded:
        """Have the engine hold the merged model; the one loaded last is there already."""
        if self._loaded is not None and self._loaded.key == recipe.key:
            return replace(self._loaded, seconds=0.0)
        started = time.monotonic()
        self._loaded = None
        plan = compile_plan(recipe, self._checkpoints)
        self._check_form(plan)
        self._write(plan)
        digest = folder_content(self._folder)
        if self._engine is None:
            self._engine = self._open(self._folder, self._brief)
        else:
            self._engine.reload()
        for weights in self._folder.glob("*.safetensors"):  # a worker that is killed leaves what is there
            weights.unlink()
        self._loaded = _Loaded(key=recipe.key, digest=digest, seconds=time.monotonic() - started)
        return self._loaded

    def _check_form(self, plan: Plan) -> None:
        assert plan.tokenizer is not None  # plans of recipes have one
        form = json.dumps([plan.config, words_digest(plan.tokenizer)], sort_keys=True)
        if self._engine is None:
            self._form = form
        elif form != self._form:
            raise EvaluationError(
                "a vLLM engine holds models of one config and tokenizer, and this candidate has another than "
                "the first; search these with `backend: transformers`"
            )

    def _write(self, plan: Plan) -> None:
        for old in self._folder.iterdir():
            old.unlink()
        check_room(self._folder, plan)
        write_model(plan, self._checkpoints, self._folder, device=torch.device("cpu"))


def score_folder(folder: Path, brief: Brief, *, engine: OpenEngine = open_engine) -> Scored:
    """Return the scores of the checkpoint in `folder` on the brief's search items."""
    return ItemScoring(brief).score_by(engine(folder, brief).lm, "search")


def folder_content(folder: Path) -> str:
    """Return `xxh3:` and 32 hex digits over the names and bytes of a folder's files."""
    whole = xxhash.xxh3_128()
    for file in sorted(folder.iterdir()):
        whole.update(f"{file.name} {file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            while piece := content.read(_PIECE):
                whole.update(piece)
    return f"xxh3:{whole.hexdigest()}"
