"""Which blocks take a scale, and into what; that it is right there is shown in test_path_models.py."""

from collections.abc import Iterable

import pytest

from evomerge.merge.folding import find_fold

LLAMA = (
    "input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight",
    "self_attn.o_proj.weight", "post_attention_layernorm.weight", "mlp.gate_proj.weight",
    "mlp.up_proj.weight", "mlp.down_proj.weight",
)  # fmt: skip
BESIDE = tuple(name for name in LLAMA if "post" not in name)
SANDWICH = (*LLAMA, "pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight")
BEHIND = tuple(name for name in SANDWICH if name.startswith("post"))
SPARSE = (
    *(name for name in LLAMA if "mlp" not in name), "mlp.gate.weight",
    *(f"mlp.experts.{i}.{part}_proj.weight" for i in (0, 11) for part in ("gate", "up", "down")),
)  # fmt: skip
GPT2 = tuple(
    f"{part}.{kind}"
    for part in ("ln_1", "attn.c_attn", "attn.c_proj", "ln_2", "mlp.c_fc", "mlp.c_proj")
    for kind in ("weight", "bias")
)


def divided(tensors: Iterable[str], model_type: str = "llama", **config: object) -> set[str] | None:
    fold = find_fold(tensors, {"model_type": model_type, **config})
    return None if fold is None else set(fold.tensors)


def test_what_writes_to_the_stream_is_divided() -> None:
    assert divided(LLAMA) == {"self_attn.o_proj.weight", "mlp.down_proj.weight"}
    assert divided((*LLAMA, "self_attn.q_norm.weight", "mlp.down_proj.bias")) == {
        "self_attn.o_proj.weight", "mlp.down_proj.weight", "mlp.down_proj.bias",
    }  # fmt: skip
    assert divided(GPT2) == {
        f"{part}.c_proj.{kind}" for part in ("attn", "mlp") for kind in ("weight", "bias")
    }


def test_norms_of_each_head_are_inside_the_attention() -> None:
    heads = [f"self_attn.{part}_layernorm.norms.{i}.weight" for part in "qk" for i in (0, 11)]
    assert divided((*LLAMA, *heads)) == divided(LLAMA)


def test_every_expert_writes_and_the_shared_one_too() -> None:
    experts = {"mlp.experts.0.down_proj.weight", "mlp.experts.11.down_proj.weight"}
    assert divided(SPARSE) == {"self_attn.o_proj.weight", *experts}
    shared = (
        "mlp.shared_expert_gate.weight",
        *(f"mlp.shared_expert.{name}_proj.weight" for name in ("gate", "up")),
    )
    writes = "mlp.shared_expert.down_proj.weight"
    assert divided((*SPARSE, *shared, writes)) == {"self_attn.o_proj.weight", *experts, writes}
    assert divided((*SPARSE, *shared)) is None


def test_norms_behind_the_branches_are_divided_in_their_place() -> None:
    fold = find_fold(SANDWICH, {"model_type": "gemma2"})
    assert fold is not None
    assert fold.tensors == set(BEHIND)
    assert fold.offset(4.0) == pytest.approx(-0.75)
    glm = [name.replace("post_attention", "post_self_attn").replace("post_feedforward", "post_mlp")
           .replace("pre_feedforward", "post_attention") for name in SANDWICH]  # fmt: skip
    fold = find_fold(glm, {"model_type": "glm4"})
    assert fold is not None
    assert fold.tensors == {"post_self_attn_layernorm.weight", "post_mlp_layernorm.weight"}
    assert fold.offset(4.0) == 0.0


def test_a_single_norm_is_that_of_two_branches_only_where_that_is_known() -> None:
    assert divided(BESIDE, "cohere") == {"self_attn.o_proj.weight", "mlp.down_proj.weight"}
    assert divided(BESIDE, "llama") is None


@pytest.mark.parametrize(
    "tensors",
    [
        [name for name in LLAMA if "input" not in name],  # OLMo 2 but for one norm
        [name for name in SANDWICH if "input" not in name and "pre_" not in name],  # OLMo 2
        [name for name in LLAMA if "layernorm" not in name],  # OLMo: its norms have no weights
        SANDWICH,  # of no known type
        (*LLAMA, "layer_scalar"),
        (*LLAMA, "mlp.router.weight"),
        (*LLAMA, *GPT2),
        [],
    ],
)
def test_other_blocks_are_not_folded(tensors: list[str]) -> None:
    assert divided(tensors) is None


def test_a_stream_that_is_normed_itself_is_not_folded() -> None:
    assert divided(GPT2, "gpt2", do_layer_norm_before=True) is not None
    assert divided(GPT2, "gpt2", do_layer_norm_before=False) is None
    assert divided(GPT2, "gpt2", apply_residual_connection_post_layernorm=True) is None
