"""Gram matrices of the inputs of linear layers, against the inputs themselves."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from evomerge.errors import EvaluationError
from evomerge.evaluate.gram import (
    GramMean,
    chunks,
    gram,
    in_features,
    linear_layers,
    measure_grams,
    shared_inputs,
)

SEQUENCES = [torch.tensor([1, 2, 3, 4, 5]), torch.tensor([6, 7])]


def tiny_llama(*, tied: bool = False) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=9, hidden_size=8, intermediate_size=12, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, tie_word_embeddings=tied,
    )  # fmt: skip
    model: Any = LlamaForCausalLM(config)
    return model.eval()


def tiny_gpt2() -> Any:
    torch.manual_seed(0)
    model: Any = GPT2LMHeadModel(GPT2Config(vocab_size=9, n_positions=8, n_embd=6, n_layer=1, n_head=1))
    return model.eval()


def test_a_gram_matrix_is_the_mean_over_tokens() -> None:
    inputs = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    tokens = inputs.reshape(6, 4)
    expected = sum(torch.outer(x, x) for x in tokens) / 6
    torch.testing.assert_close(gram(inputs), expected, rtol=1e-5, atol=1e-6)


def test_batches_count_by_their_tokens() -> None:
    tokens = torch.randn(20, 4, generator=torch.Generator().manual_seed(0))
    mean = GramMean(4)
    for part in (tokens[:3], tokens[3:3], tokens[3:17].reshape(2, 7, 4), tokens[17:]):
        mean.add(part)
    torch.testing.assert_close(mean.value, gram(tokens), rtol=1e-5, atol=1e-6)


def test_each_layer_s_own_inputs_are_measured() -> None:
    model, seen = tiny_llama(), []
    names = list(shared_inputs(model, SEQUENCES[0]))
    layer = model.get_submodule("model.layers.1.mlp.down_proj")
    handle = layer.register_forward_pre_hook(lambda _, given: seen.append(given[0].reshape(-1, 12)))
    found = measure_grams(model, SEQUENCES, names)
    handle.remove()
    tokens = torch.cat(seen)
    assert len(tokens) == sum(map(len, SEQUENCES))  # one sequence at a time: no padding was seen
    torch.testing.assert_close(found["model.layers.1.mlp.down_proj"], gram(tokens), rtol=1e-5, atol=1e-6)
    assert set(found) == set(names)


def test_layers_that_share_inputs_are_found() -> None:
    first = shared_inputs(tiny_llama(), SEQUENCES[0])
    layer = "model.layers.1."
    assert [first[f"{layer}self_attn.{each}_proj"] for each in "qkv"] == [f"{layer}self_attn.q_proj"] * 3
    assert first[f"{layer}mlp.up_proj"] == f"{layer}mlp.gate_proj"
    for alone in (f"{layer}self_attn.o_proj", f"{layer}mlp.gate_proj", f"{layer}mlp.down_proj", "lm_head"):
        assert first[alone] == alone
    found = measure_grams(tiny_llama(), SEQUENCES, first)
    assert all(torch.equal(found[name], found[leader]) for name, leader in first.items())
    assert not torch.equal(found[f"{layer}mlp.gate_proj"], found[f"{layer}self_attn.q_proj"])


def test_an_output_head_that_is_the_embedding_is_no_linear_layer() -> None:
    assert "lm_head" in linear_layers(tiny_llama())
    assert "lm_head" not in linear_layers(tiny_llama(tied=True))


def test_gpt2_s_layers_have_their_inputs_first() -> None:
    model = tiny_gpt2()
    layers = linear_layers(model)
    assert in_features(layers["transformer.h.0.mlp.c_proj"]) == 24
    found = measure_grams(model, SEQUENCES, layers)
    assert found["transformer.h.0.mlp.c_proj"].shape == (24, 24)
    assert found["transformer.h.0.mlp.c_fc"].shape == (6, 6)


def test_chunks_keep_the_order_and_the_limit() -> None:
    assert chunks({"a": 3, "b": 3, "c": 5, "d": 20, "e": 1}, 8) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert chunks({}, 8) == []


def test_inputs_that_overflow_are_an_error_and_the_hooks_are_gone() -> None:
    model = tiny_llama()
    with torch.no_grad():
        model.model.norm.weight.fill_(float("inf"))
    with pytest.raises(EvaluationError, match="the inputs of `lm_head` are not finite"):
        measure_grams(model, SEQUENCES, ["lm_head"])
    assert not any(module._forward_pre_hooks for module in model.modules())
