"""Which blocks let a scale of the hidden state be folded into their weights, and into which of them.

A block does if it reads the stream through norms alone and adds what it makes to it: with the stream C
times as large it is the same function, up to the norms' epsilon, once what it adds is divided by C. A
block is known by its parts, all of them, because one name means different things: Llama's
`post_attention_layernorm` stands before the MLP, Gemma 2's and OLMo 2's behind the attention. What is
not declared here is not folded. Blocks that read the bare stream (OLMo 2, OLMo 3) cannot be.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import product
from typing import Any

_END = re.compile(r"[._](weight|bias)$")
_NUMBER = re.compile(r"(?<=\.)\d+(?=\.)")


@dataclass(frozen=True, kw_only=True)
class Branch:
    """An attention or MLP: the parts it reads with and those it writes to the stream with, and may have."""

    reads: frozenset[str]
    writes: frozenset[str]
    also: frozenset[str] = frozenset()


@dataclass(frozen=True, kw_only=True)
class Norms:
    """The norms of a block: before its branches and, in a sandwich, behind them, where they write.

    Some things only a model's code says: whether a single norm is that of both branches, and whether a norm
    multiplies by its weights or by them plus `lacking`. Such norms are known for `types` of models alone.
    """

    before: frozenset[str]
    behind: frozenset[str] = frozenset()
    lacking: float = 0.0
    types: frozenset[str] = frozenset()


def _branch(module: str, reads: str, writes: str, also: str = "") -> Branch:
    def parts(names: str) -> frozenset[str]:
        return frozenset(f"{module}.{name}".removeprefix(".") for name in names.split())

    return Branch(reads=parts(reads), writes=parts(writes), also=parts(also))


_QKV = "q_proj k_proj v_proj"
_LATENT = "kv_a_proj_with_mqa kv_a_layernorm kv_b_proj"
_ATTENTIONS = (
    _branch("self_attn", _QKV, "o_proj", "q_norm k_norm query_layernorm key_layernorm "
            "q_layernorm.norms.* k_layernorm.norms.* sinks"),
    _branch("self_attn", "qkv_proj", "o_proj"),
    _branch("self_attn", _QKV, "dense", "q_layernorm k_layernorm"),
    _branch("self_attn", _QKV, "out_proj"),
    _branch("self_attn", "query_key_value", "dense", "q_layernorm k_layernorm"),
    _branch("self_attn", f"q_proj {_LATENT}", "o_proj"),
    _branch("self_attn", f"q_a_proj q_a_layernorm q_b_proj {_LATENT}", "o_proj"),
    _branch("self_attention", "query_key_value", "dense"),
    _branch("attention", "query_key_value", "dense"),
    _branch("attn", "c_attn", "c_proj"),
    _branch("attn", _QKV, "out_proj"),
    _branch("attn", "qkv_proj", "out_proj"),
    _branch("attn.attention", _QKV, "out_proj"),
)  # fmt: skip

_EXPERTS = "gate experts.*.gate_proj experts.*.up_proj"
_MLPS = (
    _branch("mlp", "gate_proj up_proj", "down_proj"),
    _branch("mlp", "gate_up_proj", "down_proj"),
    _branch("mlp", "up_proj", "down_proj", "act_fn.alpha_p act_fn.alpha_n act_fn.beta act_fn.eps"),
    _branch("mlp", "c_fc", "c_proj"),
    _branch("mlp", "fc1", "fc2"),
    _branch("mlp", "fc_in", "fc_out"),
    _branch("mlp", "dense_h_to_4h", "dense_4h_to_h"),
    _branch("", "fc1", "fc2"),
    _branch("mlp", _EXPERTS, "experts.*.down_proj", "gate.e_score_correction"),
    _branch("mlp", f"{_EXPERTS} shared_expert_gate shared_expert.gate_proj shared_expert.up_proj",
            "experts.*.down_proj shared_expert.down_proj"),
    _branch("mlp", f"{_EXPERTS} shared_experts.gate_proj shared_experts.up_proj",
            "experts.*.down_proj shared_experts.down_proj", "gate.e_score_correction"),
    _branch("mlp", "router experts.gate_up_proj", "experts.down_proj"),
    _branch("block_sparse_moe", "gate experts.*.w1 experts.*.w3", "experts.*.w2"),
    _branch("block_sparse_moe", "input_linear router.layer", "output_linear"),
)  # fmt: skip


def _norms(before: str, behind: str = "", *, lacking: float = 0.0, types: str = "") -> Norms:
    return Norms(
        before=frozenset(before.split()),
        behind=frozenset(behind.split()),
        lacking=lacking,
        types=frozenset(types.split()),
    )


_NORMS = (
    _norms("input_layernorm post_attention_layernorm"),
    _norms("input_layernorm pre_feedforward_layernorm"),
    _norms("attention_layernorm feedforward_layernorm"),
    _norms("self_attn_layer_norm final_layer_norm"),
    _norms("ln_1 ln_2"),
    _norms("ln_attn ln_mlp"),
    _norms("input_layernorm", types="phi falcon stablelm cohere cohere2 cohere2_moe"),
    _norms("ln_1", types="gptj codegen"),
    _norms("input_layernorm pre_feedforward_layernorm",
           "post_attention_layernorm post_feedforward_layernorm", lacking=1.0, types="gemma2 gemma3_text"),
    _norms("input_layernorm post_attention_layernorm",
           "post_self_attn_layernorm post_mlp_layernorm", types="glm4"),
)  # fmt: skip

_NORMED_STREAM = {"apply_residual_connection_post_layernorm": True, "do_layer_norm_before": False}
"""Config values under which the stream itself goes through the norms of such blocks (Bloom, OPT)."""


@dataclass(frozen=True, kw_only=True)
class Fold:
    """What of a layer is divided by the scale: these of its tensors, by their names inside it."""

    tensors: frozenset[str]
    lacking: float = 0.0

    def offset(self, scale: float) -> float:
        """Return what is added to such a tensor after the division by `scale`."""
        return self.lacking / scale - self.lacking


NOTHING = Fold(tensors=frozenset())


def find_fold(tensors: Iterable[str], config: Mapping[str, Any]) -> Fold | None:
    """Return how a layer with these tensors (names inside it) takes a scale; None if it does not."""
    parts = {name: _part(name) for name in tensors}
    if any(config.get(key) == value for key, value in _NORMED_STREAM.items()):
        return None
    found = _divided(frozenset(parts.values()), str(config["model_type"]))
    if found is None:
        return None
    writes, lacking = found
    return Fold(tensors=frozenset(name for name, part in parts.items() if part in writes), lacking=lacking)


@cache
def _divided(parts: frozenset[str], model_type: str) -> tuple[frozenset[str], float] | None:
    """Return the parts that write to the stream, and what the weights there lack."""
    for norms, attention, mlp in product(_NORMS, _ATTENTIONS, _MLPS):
        needed = norms.before | norms.behind | attention.reads | attention.writes | mlp.reads | mlp.writes
        known = not norms.types or model_type in norms.types
        if known and needed <= parts <= needed | attention.also | mlp.also:
            return norms.behind or attention.writes | mlp.writes, norms.lacking
    return None


def _part(name: str) -> str:
    """Return the part a tensor belongs to (`mlp.experts.7.w1.weight` to `mlp.experts.*.w1`)."""
    return _END.sub("", _NUMBER.sub("*", name))
