"""The vLLM backend keeps its half of the contract, held to a stand-in that reloads a folder as vLLM would."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers
from lm_eval.models.huggingface import HFLM
from safetensors.torch import load_file

from evomerge.controller.setup import resolve
from evomerge.dispatch.worker import Worker
from evomerge.errors import RequestError
from evomerge.evaluate import vllm
from evomerge.evaluate.brief import Brief
from evomerge.evaluate.evaluator import Evaluator
from evomerge.evaluate.vllm import Engine, VllmEvaluator, check_installed, open_engine, score_folder
from evomerge.publish.checkpoint import write_checkpoint
from evomerge.recipe import Recipe
from evomerge.space import parse_space, read_space
from evomerge.space.baselines import baselines
from evomerge.types import Failed, Identified, Scored
from tests.controller.conftest import SPACE

LABELS = ("parent math", "uniform average", "task arithmetic")


class StandIn:
    """What is used of `vllm.LLM`: weights are read from a folder, and a cache outlives them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.model: Any = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
        self.stale = False
        self.reloads = 0

    def collective_rpc(self, method: str) -> list[None]:
        assert method == "reload_weights"
        [file] = self.folder.glob("*.safetensors")
        self.model.load_state_dict(load_file(file))
        self.stale = True
        self.reloads += 1
        return [None]

    def reset_prefix_cache(self) -> bool:
        self.stale = False
        return True


class Answering(HFLM):  # type: ignore[misc]  # which is untyped
    """An lm-eval model that asks the stand-in, unless its cache is of another model."""

    def __init__(self, llm: StandIn, folder: Path) -> None:
        tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
        super().__init__(pretrained=llm.model, tokenizer=tokenizer, batch_size=40, softmax_dtype="float32")
        self.llm = llm

    def _model_call(self, *args: Any, **kwargs: Any) -> Any:
        assert not self.llm.stale
        return super()._model_call(*args, **kwargs)


def stand_in(folder: Path, brief: Brief) -> Engine:
    assert brief.backend == "vllm"
    llm = StandIn(folder)
    return Engine(lm=Answering(llm, folder), llm=llm)


@pytest.fixture(scope="module")
def asked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Brief, dict[str, Recipe]]:
    file = tmp_path_factory.mktemp("space") / "space.yaml"
    file.write_text(SPACE)
    record = resolve(read_space(file))
    found = {each.label: each.recipe for each in baselines(record.genome)}
    return replace(record.brief(), backend="vllm"), {label: found[label] for label in LABELS}


@pytest.fixture
def evaluator(asked: tuple[Brief, dict[str, Recipe]]) -> Iterator[VllmEvaluator]:
    made = VllmEvaluator(asked[0], engine=stand_in)
    yield made
    made.close()
    assert not made._folder.exists()


def test_scores_are_those_of_transformers(
    evaluator: VllmEvaluator, asked: tuple[Brief, dict[str, Recipe]]
) -> None:
    brief, recipes = asked
    usual = Evaluator(replace(brief, backend="transformers"))
    seen = set()
    for recipe in recipes.values():
        found, expected = evaluator.evaluate(recipe), usual.evaluate(recipe)
        assert isinstance(found, Scored)
        assert isinstance(expected, Scored)
        assert found.scores == expected.scores
        assert [each.scores for each in found.items] == [each.scores for each in expected.items]
        assert found.device.startswith("vLLM on ")
        seen.add(found.scores["math_b"])
    usual.close()
    assert len(seen) > 1


def test_one_engine_takes_one_candidate_after_another(
    evaluator: VllmEvaluator, asked: tuple[Brief, dict[str, Recipe]]
) -> None:
    first, second, _ = asked[1].values()
    who = [evaluator.identify(recipe, screen=True) for recipe in (first, second, first)]
    assert all(isinstance(each, Identified) for each in who)
    digests = [each.digest for each in who if isinstance(each, Identified)]
    assert digests[0] == digests[2] != digests[1]
    assert evaluator._engine is not None
    assert evaluator._engine.llm.reloads == 2
    scored = evaluator.evaluate(first, look=0)
    assert isinstance(scored, Scored)
    assert scored.merge_seconds == 0  # it was there
    assert evaluator._engine.llm.reloads == 2
    assert list(evaluator._folder.glob("*.safetensors")) == []  # nor is memory taken twice


def test_a_candidate_of_another_form_fails_with_a_reason(
    evaluator: VllmEvaluator, asked: tuple[Brief, dict[str, Recipe]]
) -> None:
    recipe = asked[1]["uniform average"]
    assert isinstance(evaluator.evaluate(recipe), Scored)
    other = evaluator.evaluate(replace(recipe, dtype="bfloat16"))
    assert isinstance(other, Failed)
    assert "has another than the first" in other.reason
    assert isinstance(evaluator.evaluate(recipe), Scored)


def test_an_export_is_scored_by_the_same_backend(
    evaluator: VllmEvaluator, asked: tuple[Brief, dict[str, Recipe]], tmp_path: Path
) -> None:
    recipe = asked[1]["task arithmetic"]
    recorded = evaluator.evaluate(recipe)
    assert isinstance(recorded, Scored)
    folder = write_checkpoint(recipe, tmp_path / "merged")
    assert score_folder(folder, asked[0], engine=stand_in).scores == recorded.scores


def test_a_worker_has_the_evaluator_of_its_backend(
    asked: tuple[Brief, dict[str, Recipe]], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Brief] = []
    monkeypatch.setattr(vllm, "VllmEvaluator", made.append)
    Worker(asked[0])
    assert made == [asked[0]]


def test_without_vllm_the_engine_is_refused_in_a_sentence(
    asked: tuple[Brief, dict[str, Recipe]], tmp_path: Path
) -> None:
    with pytest.raises(RequestError, match="needs vLLM, which is not installed"):
        check_installed()
    with pytest.raises(RequestError, match="needs vLLM"):
        open_engine(tmp_path, asked[0])


def test_a_search_without_vllm_ends_with_code_2_and_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "space.yaml").write_text(f"{SPACE}backend: vllm\n")
    done = subprocess.run(
        [sys.executable, "-m", "evomerge", "search", "space.yaml", "--run", "run"],
        capture_output=True, text=True, check=False, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "`backend: vllm` needs vLLM, which is not installed" in done.stderr
    assert not (tmp_path / "run").exists()


def test_another_backend_is_refused() -> None:
    with pytest.raises(RequestError, match="backend"):
        parse_space(f"{SPACE}backend: llama.cpp\n")
