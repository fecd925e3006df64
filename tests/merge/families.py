"""Random models of many families, small enough to stack in milliseconds."""

from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM

EPS = ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon")
SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 24, "max_position_embeddings": 64, "eos_token_id": None,
    "pad_token_id": 0,
} | dict.fromkeys(EPS, 1e-10)  # fmt: skip
"""Folding is exact but for the norms' epsilon, which is small here, as these models' streams are."""
GPT2 = {"vocab_size": 32, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64, EPS[2]: 1e-10}
TYPES = ["full_attention", "sliding_attention", "full_attention"]
SLIDING = {"use_sliding_window": True, "sliding_window": 3, "layer_types": TYPES}
GEMMA = {"head_dim": 8, "sliding_window": 3, "layer_types": TYPES}
EXPERTS = {"num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 8}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", SIZES | {"attention_bias": True, "mlp_bias": True}),
    "llama_tied": ("llama", SIZES | {"tie_word_embeddings": True}),
    "mistral": ("mistral", SIZES),
    "qwen2": ("qwen2", SIZES | SLIDING),
    "qwen2_tied": ("qwen2", SIZES | {"tie_word_embeddings": True}),
    "qwen3": ("qwen3", SIZES | {"head_dim": 8}),
    "phi3": ("phi3", SIZES),
    "mixtral": ("mixtral", SIZES | EXPERTS),
    "qwen3_moe": ("qwen3_moe", SIZES | EXPERTS | {"head_dim": 8, "mlp_only_layers": [1]}),
    "qwen2_moe": ("qwen2_moe", SIZES | EXPERTS | {"shared_expert_intermediate_size": 8}),
    "olmoe": ("olmoe", SIZES | EXPERTS),
    "granite": ("granite", SIZES | {"residual_multiplier": 0.5, "attention_multiplier": 0.35}),
    "gemma2": ("gemma2", SIZES | GEMMA),
    "gemma3": ("gemma3_text", SIZES | GEMMA),
    "glm4": ("glm4", SIZES | {"head_dim": 8}),
    "cohere": ("cohere", SIZES),
    "stablelm": ("stablelm", SIZES),
    "stablelm_beside": ("stablelm", SIZES | {"use_parallel_residual": True, "qk_layernorm": True}),
    "starcoder2": ("starcoder2", SIZES),
    "gpt2": ("gpt2", GPT2),
    "gptj": ("gptj", GPT2 | {"rotary_dim": 4}),
    "pythia": ("gpt_neox", SIZES | {"use_parallel_residual": True}),
    "gpt_neox": ("gpt_neox", SIZES | {"use_parallel_residual": False}),
    "phi": ("phi", SIZES | {"num_key_value_heads": 2}),
    "bloom": ("bloom", SIZES | {"n_head": 2}),
    "bloom_normed": ("bloom", SIZES | {"n_head": 2, "apply_residual_connection_post_layernorm": True}),
    "olmo2": ("olmo2", SIZES),
    "gpt1": ("openai-gpt", GPT2),
}


def save_random_model(name: str, dtype: str, seed: int, folder: Path) -> None:
    """Write a model whose every stored number is random, norms and biases included."""
    model_type, content = FAMILIES[name]
    config = transformers.AutoConfig.for_model(model_type, **content)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))  # type: ignore[no-untyped-call]
        for value in model.state_dict().values():
            value.add_(torch.randn(value.shape) * 0.1)
    model.save_pretrained(folder)
