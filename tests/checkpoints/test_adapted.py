"""Adapters against PEFT's own `merge_and_unload`, through the files that PEFT writes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from evomerge.checkpoints.adapted import Adapted, apply_adapter
from evomerge.checkpoints.adapters import open_adapter
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.tensors import open_library
from evomerge.errors import MergeError
from tests.checkpoints.peft_adapters import Words, merged_by_peft, save_adapter

PLAIN: dict[str, dict[str, Any]] = {
    "lora": {"target_modules": ["fc", "head"]},
    "rslora": {"target_modules": ["fc", "head"], "use_rslora": True},
    "patterns": {
        "target_modules": ["fc", "head"],
        "rank_pattern": {"fc": 2, "^head": 4},
        "alpha_pattern": {"h.*d": 7},
    },
    "bias": {"target_modules": ["fc"], "bias": "all"},
    "own bias": {"target_modules": ["fc"], "bias": "lora_only", "lora_bias": True, "init_lora_weights": True},
    "dora": {"target_modules": ["fc", "head"], "use_dora": True},
    "embedding": {"target_modules": ["emb", "fc"]},
    "embedding by dora": {"target_modules": ["emb"], "use_dora": True, "use_rslora": True},
    "saved whole": {"target_modules": ["fc"], "modules_to_save": ["head", "emb"]},
    "saved whole, and every bias": {"target_modules": ["fc"], "modules_to_save": ["head"], "bias": "all"},
    "tokens": {"target_modules": ["fc"], "trainable_token_indices": {"emb": [1, 9, 4]}},
}

GPT2: dict[str, dict[str, Any]] = {
    "square": {"target_modules": ["attn.c_proj"]},
    "oblong": {"target_modules": ["c_attn", "c_fc", "mlp.c_proj"]},
    "square and head": {
        "target_modules": ["attn.c_proj", "lm_head"]
    },  # PEFT then writes fan_in_fan_out: false
    "dora": {"target_modules": ["attn.c_proj", "c_attn"], "use_dora": True},
    "tied embedding": {"target_modules": ["wte"]},
    "bias": {"target_modules": ["attn.c_proj"], "bias": "all", "lora_bias": True, "init_lora_weights": True},
    "tokens": {"target_modules": ["c_attn"], "trainable_token_indices": [3, 5]},
}

LLAMA: dict[str, dict[str, Any]] = {
    "all linear": {"target_modules": "all-linear"},
    "layers": {
        "target_modules": ["q_proj", "down_proj"],
        "rank_pattern": {r"layers\.1\.self_attn\.q_proj": 2},
        "alpha_pattern": {"down_proj": 1, "q_proj": 2},
    },
    "embedding": {"target_modules": ["embed_tokens"]},
    "head": {"target_modules": ["lm_head", "k_proj"]},
    "norms": {"target_modules": ["v_proj"], "modules_to_save": ["norm"]},
    "both saved": {"target_modules": ["v_proj"], "modules_to_save": ["embed_tokens", "lm_head"]},
    "saved and tied": {
        "target_modules": ["v_proj"],
        "modules_to_save": ["embed_tokens"],
        "ensure_weight_tying": True,
    },
    "tokens": {"target_modules": ["v_proj"], "trainable_token_indices": [1, 7]},
}


def applied(model: Words, folder: Path) -> Adapted:
    config = json.loads((folder / "adapter_config.json").read_text())
    return apply_adapter(model.state_dict(), load_file(folder / "adapter_model.safetensors"), config)


def opened(base: Path, folder: Path) -> dict[str, Tensor]:
    """Return the adapted model's weights as an evaluator reads them."""
    checkpoint = open_adapter(folder, open_checkpoint(base))
    library = open_library({"adapted": checkpoint}, ["adapted"])
    return {name: library.float32("adapted", name).clone() for name in checkpoint.specs}


def check_tied(got: dict[str, Tensor], want: dict[str, Tensor], embedding: str) -> None:
    """Compare with PEFT's weights, where a head that `got` lacks must be the embedding."""
    assert got.keys() <= want.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(got.get(name, got[embedding]), tensor, rtol=1e-5, atol=1e-6)


@pytest.fixture(params=[False, True], ids=["untied", "tied"])
def llama(request: pytest.FixtureRequest) -> LlamaForCausalLM:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=24, hidden_size=16, intermediate_size=20, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=request.param, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    return LlamaForCausalLM(config)


@pytest.mark.parametrize("kind", PLAIN)
def test_merging_into_plain_dicts_is_what_peft_does(kind: str, tmp_path: Path) -> None:
    model = Words()
    folder = save_adapter(model, tmp_path, **PLAIN[kind])
    before, got, want = model.state_dict(), applied(model, folder), merged_by_peft(model, folder)
    assert got.weights.keys() == want.keys()
    for name, tensor in want.items():
        torch.testing.assert_close(got.weights[name], tensor, rtol=1e-5, atol=1e-6)
        assert (name in got.deltas) == (not torch.equal(tensor, before[name]))
        if name in got.deltas:
            torch.testing.assert_close(got.deltas[name], tensor - before[name], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", GPT2)
def test_weights_stored_in_out_are_what_peft_makes_of_them(kind: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            vocab_size=24, n_embd=16, n_layer=2, n_head=2, n_positions=16, bos_token_id=1, eos_token_id=1
        )
    )
    model.save_pretrained(tmp_path / "base")
    folder = save_adapter(model, tmp_path / "adapter", task_type="CAUSAL_LM", **GPT2[kind])
    want = merged_by_peft(model, folder)
    got = opened(tmp_path / "base", folder)
    assert any(not torch.equal(want[name], tensor) for name, tensor in model.state_dict().items())
    check_tied(got, want, "transformer.wte.weight")


@pytest.mark.parametrize("kind", LLAMA)
def test_llama_with_its_head_tied_or_not_is_what_peft_makes_of_it(
    kind: str, llama: LlamaForCausalLM, tmp_path: Path
) -> None:
    if LLAMA[kind].get("ensure_weight_tying") and not llama.config.tie_word_embeddings:
        pytest.skip("nothing to tie")
    llama.save_pretrained(tmp_path / "base")
    folder = save_adapter(llama, tmp_path / "adapter", task_type="CAUSAL_LM", **LLAMA[kind])
    got, want = opened(tmp_path / "base", folder), merged_by_peft(llama, folder)
    check_tied(got, want, "model.embed_tokens.weight")
    tied = torch.equal(want["lm_head.weight"], want["model.embed_tokens.weight"])
    assert ("lm_head.weight" in got) == (not tied)


def test_a_product_in_bfloat16_is_added_in_float32_and_cast_once() -> None:
    base = {"fc.weight": torch.full((4, 4), 1.0, dtype=torch.bfloat16)}
    a, b = (torch.randn(2, 4).to(torch.bfloat16) * 0.01, torch.randn(4, 2).to(torch.bfloat16) * 0.01)
    adapter = {"base_model.model.fc.lora_A.weight": a, "base_model.model.fc.lora_B.weight": b}
    got = apply_adapter(base, adapter, {"r": 2, "lora_alpha": 6})
    exact = 3.0 * (b.float() @ a.float())
    assert torch.equal(got.deltas["fc.weight"], exact)
    assert torch.equal(got.weights["fc.weight"], (1.0 + exact).to(torch.bfloat16))


def test_square_weights_of_unknown_layout_go_by_what_the_caller_says() -> None:
    base = {"fc.weight": torch.zeros(3, 3)}
    adapter = {
        "base_model.model.fc.lora_A.weight": torch.tensor([[1.0, 2.0, 3.0]]),
        "base_model.model.fc.lora_B.weight": torch.tensor([[1.0], [0.0], [0.0]]),
    }
    row = torch.tensor([[1.0, 2.0, 3.0], [0, 0, 0], [0, 0, 0]])
    for config, kind, want in (
        ({}, None, row),
        ({"fan_in_fan_out": True}, None, row.T),
        ({"fan_in_fan_out": True}, "linear", row),
        ({}, "conv1d", row.T),
    ):
        got = apply_adapter(base, adapter, {"r": 1, "lora_alpha": 1, **config}, module_kind=kind)
        assert torch.equal(got.weights["fc.weight"], want)


def test_an_embedding_with_as_many_words_as_entries_is_stored_as_any_embedding() -> None:
    base = {"emb.weight": torch.zeros(2, 2)}
    adapter = {
        "base_model.model.emb.lora_embedding_A": torch.tensor([[1.0, 2.0]]),  # by word
        "base_model.model.emb.lora_embedding_B": torch.tensor([[1.0], [0.0]]),
    }
    got = apply_adapter(base, adapter, {"r": 1, "lora_alpha": 1}, module_kind="linear")
    assert torch.equal(got.weights["emb.weight"], torch.tensor([[1.0, 0.0], [2.0, 0.0]]))


def test_dora_leaves_rows_of_zeros_alone() -> None:
    base = {"fc.weight": torch.tensor([[0.0, 0.0], [3.0, 4.0]])}
    adapter = {
        "base_model.model.fc.lora_A.weight": torch.zeros(1, 2),
        "base_model.model.fc.lora_B.weight": torch.zeros(2, 1),
        "base_model.model.fc.lora_magnitude_vector": torch.tensor([1.0, 10.0]),
    }
    got = apply_adapter(base, adapter, {"r": 1, "lora_alpha": 1, "use_dora": True})
    assert torch.equal(got.weights["fc.weight"], torch.tensor([[0.0, 0.0], [6.0, 8.0]]))


def test_a_value_that_is_not_finite_is_an_error() -> None:
    base = {"fc.weight": torch.zeros(2, 2)}
    adapter = {
        "base_model.model.fc.lora_A.weight": torch.full((1, 2), float("nan")),
        "base_model.model.fc.lora_B.weight": torch.ones(2, 1),
    }
    with pytest.raises(MergeError, match=r"`fc\.weight` of the adapted model holds NaN"):
        apply_adapter(base, adapter, {"r": 1, "lora_alpha": 1})
