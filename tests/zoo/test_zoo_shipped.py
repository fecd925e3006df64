"""The shipped models are small, plain, and hold the situation that merging is for."""

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge.zoo.adapters import write_adapter
from evomerge.zoo.catalog import ADAPTERS, NAMES, PARAMETERS, entries, shipped_models, shipped_tasks
from evomerge.zoo.tasks import read_items
from tests.checkpoints.peft_adapters import merged_by_peft
from tests.zoo.scoring import accuracy

State = Mapping[str, torch.Tensor]
DTYPES = (torch.float32, torch.bfloat16)


@lru_cache
def state(name: str) -> State:
    model = AutoModelForCausalLM.from_pretrained(shipped_models() / name, dtype=torch.float32)
    return model.state_dict()


def merged(**weights: float) -> State:
    """The base plus the weighted task vectors of the named experts."""
    base = state("base")
    return {k: b + sum(w * (state(n)[k] - b) for n, w in weights.items()) for k, b in base.items()}


def score(weights: State, task: str, dtype: torch.dtype = torch.float32) -> float:
    model = AutoModelForCausalLM.from_pretrained(shipped_models() / "base", dtype=dtype)
    model.load_state_dict({k: v.to(dtype) for k, v in weights.items()})
    tokenizer = AutoTokenizer.from_pretrained(shipped_models() / "base")
    return accuracy(model, tokenizer, read_items(shipped_tasks(), task)[:600])


def test_everything_shipped_is_at_most_16_megabytes() -> None:
    folder = shipped_models().parent
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= 16e6


@pytest.mark.parametrize("name", NAMES)
def test_a_shipped_model_is_a_stock_checkpoint(name: str) -> None:
    folder = shipped_models() / name
    for file in (
        "config.json",
        "generation_config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
    ):
        assert (folder / file).is_file()
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert model.config.architectures == ["LlamaForCausalLM"]
    assert model.dtype == torch.bfloat16
    assert sum(p.numel() for p in model.parameters()) == PARAMETERS
    assert not model.config.tie_word_embeddings


def test_the_catalog_lists_what_is_there() -> None:
    assert [entry.name for entry in entries()] == list(NAMES)
    assert sorted(path.name for path in shipped_models().iterdir()) == sorted([*NAMES, *ADAPTERS])
    assert all(entry.folder.is_dir() and Path(entry.folder).is_absolute() for entry in entries())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_experts_know_their_subject(dtype: torch.dtype) -> None:
    assert score(state("math"), "math_a", dtype) >= 0.92
    assert score(state("lang"), "lang_b", dtype) >= 0.97
    assert score(state("logic"), "logic_a", dtype) >= 0.95
    assert score(state("poor"), "logic_a", dtype) <= 0.30


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_cross_task_needs_a_merge(dtype: torch.dtype) -> None:
    parents = {name: score(state(name), "math_b", dtype) for name in NAMES}
    assert max(parents.values()) <= 0.45
    average = score(merged(math=0.5, lang=0.5), "math_b", dtype)
    assert average < max(parents["math"], parents["lang"])
    assert score(merged(math=1.0, lang=1.0), "math_b", dtype) >= 0.60


@pytest.mark.parametrize(
    ("name", "task", "least"), [("math-lora", "math_a", 0.85), ("lang-lora", "lang_b", 0.95)]
)
def test_an_adapter_knows_most_of_what_its_expert_does(name: str, task: str, least: float) -> None:
    model = AutoModelForCausalLM.from_pretrained(shipped_models() / "base", dtype=torch.float32)
    assert score(merged_by_peft(model, shipped_models() / name), task) >= least


def test_adapters_are_cut_again_as_shipped(tmp_path: Path) -> None:
    for name in ("base", "lang"):
        (tmp_path / name).symlink_to(shipped_models() / name)
    write_adapter(tmp_path, "lang-lora")
    again, shipped = (
        load_file(folder / "lang-lora" / "adapter_model.safetensors")
        for folder in (tmp_path, shipped_models())
    )
    assert again.keys() == shipped.keys()
    for key in again:
        if key.endswith("lora_A.weight"):  # the product: factors may change their signs together
            other = key.replace("lora_A", "lora_B")
            one, two = (each[other].float() @ each[key].float() for each in (again, shipped))
            assert torch.allclose(one, two, atol=2e-3)
        elif "lora" not in key:
            assert torch.equal(again[key], shipped[key])
