"""Structure read from names alone, for the tensor names that real families write."""

from dataclasses import dataclass, field

import pytest

from evomerge.checkpoints.architecture import Architecture, is_embedding, read_architecture
from evomerge.errors import CheckpointError

LAYERS = 3
QKVO = ("q_proj", "k_proj", "v_proj", "o_proj")
GATED = ("mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight")
TWO_NORMS = ("input_layernorm.weight", "post_attention_layernorm.weight")
FOUR_NORMS = (*TWO_NORMS, "pre_feedforward_layernorm.weight", "post_feedforward_layernorm.weight")


def weights(block: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{block}.{name}.weight" for name in names)


def with_biases(*names: str) -> tuple[str, ...]:
    return tuple(f"{name}.{kind}" for name in names for kind in ("weight", "bias"))


@dataclass(frozen=True, kw_only=True)
class Family:
    """The tensor names a family saves, by where they belong; the defaults are Llama's."""

    prefix: str = "model.layers"
    attn: tuple[str, ...] = weights("self_attn", QKVO)
    mlp: tuple[str, ...] = GATED
    rest: tuple[str, ...] = TWO_NORMS
    embed: tuple[str, ...] = ("model.embed_tokens.weight",)
    last: tuple[str, ...] = ("model.norm.weight",)
    head: str | None = "lm_head.weight"
    also_head: tuple[str, ...] = field(default=())
    embedding: str = "model.embed_tokens.weight"

    def places(self) -> dict[str, tuple[int | None, str]]:
        """Return every tensor's layer and module."""
        inside = {"attn": self.attn, "mlp": self.mlp, "rest": self.rest}
        outside = (*self.last, *((self.head,) if self.head else ()), *self.also_head)
        return {
            **dict.fromkeys(outside, (None, "head")),
            **dict.fromkeys(self.embed, (None, "embed")),
            **{
                f"{self.prefix}.{layer}.{name}": (layer, module)
                for layer in range(LAYERS)
                for module, names in inside.items()
                for name in names
            },
        }


QK_NORMS = weights("self_attn", (*QKVO, "q_norm", "k_norm"))
FAMILIES = {
    "llama": Family(),
    "mistral": Family(),
    "granite": Family(),
    "qwen2": Family(attn=(*weights("self_attn", QKVO), *(f"self_attn.{x}.bias" for x in QKVO[:3]))),
    "qwen2 tied": Family(head=None),
    "qwen3": Family(attn=QK_NORMS),
    "olmo2": Family(attn=QK_NORMS, rest=FOUR_NORMS[1::2]),
    "gemma2": Family(rest=FOUR_NORMS, head=None),
    "gemma3_text": Family(attn=QK_NORMS, rest=FOUR_NORMS, head=None),
    "phi": Family(
        attn=with_biases(*(f"self_attn.{name}" for name in ("q_proj", "k_proj", "v_proj", "dense"))),
        mlp=with_biases("mlp.fc1", "mlp.fc2"),
        rest=with_biases("input_layernorm"),
        last=with_biases("model.final_layernorm"),
        also_head=("lm_head.bias",),
    ),
    "phi3": Family(
        attn=weights("self_attn", ("qkv_proj", "o_proj")), mlp=weights("mlp", ("gate_up_proj", "down_proj"))
    ),
    "gpt2": Family(
        prefix="transformer.h",
        attn=with_biases("attn.c_attn", "attn.c_proj"),
        mlp=with_biases("mlp.c_fc", "mlp.c_proj"),
        rest=with_biases("ln_1", "ln_2"),
        embed=("transformer.wpe.weight", "transformer.wte.weight"),
        last=with_biases("transformer.ln_f"),
        head=None,
        embedding="transformer.wte.weight",
    ),
    "gpt_neox": Family(
        prefix="gpt_neox.layers",
        attn=with_biases("attention.query_key_value", "attention.dense"),
        mlp=with_biases("mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
        rest=with_biases("input_layernorm", "post_attention_layernorm"),
        embed=("gpt_neox.embed_in.weight",),
        last=with_biases("gpt_neox.final_layer_norm"),
        head="embed_out.weight",
        embedding="gpt_neox.embed_in.weight",
    ),
    "qwen3_moe": Family(
        attn=QK_NORMS,
        mlp=(
            "mlp.gate.weight",
            *(f"mlp.experts.{i}.{name}.weight" for i in range(8) for name in ("gate_proj", "down_proj")),
        ),
    ),
}


def read(names: list[str]) -> Architecture:
    return read_architecture(names, {"model_type": "some"})


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_structure_of_a_family_is_read(family: Family) -> None:
    structure = read(list(family.places()))
    assert structure == Architecture(
        model_type="some",
        layers=LAYERS,
        prefix=family.prefix,
        embedding=family.embedding,
        head=family.head,
        tied=family.head is None,
    )


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_every_tensor_of_a_family_is_placed(family: Family) -> None:
    expected = family.places()
    structure = read(list(expected))
    assert {name: structure.place(name) for name in expected} == expected


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_the_order_of_names_does_not_matter(family: Family) -> None:
    names = list(family.places())
    assert read(names[::-1]) == read(names) == read(sorted(names))


def test_names_may_lack_the_leading_module() -> None:
    structure = read(
        ["wte.weight", "wpe.weight", "h.0.attn.c_attn.weight", "h.0.mlp.c_fc.weight", "ln_f.weight"]
    )
    assert (structure.prefix, structure.layers, structure.embedding) == ("h", 1, "wte.weight")
    assert structure.place("h.0.mlp.c_fc.weight") == (0, "mlp")


@pytest.mark.parametrize("name", ["emb.weight", "model.emb.weight", "tok_emb.weight", "wte.weight"])
def test_embeddings_are_known_by_their_names(name: str) -> None:
    assert is_embedding(name)
    assert not is_embedding("model.rotary_emb.inv_freq")
    assert not is_embedding("ember.weight")


def test_ten_and_more_layers_are_counted_as_numbers() -> None:
    names = [f"model.layers.{i}.self_attn.q_proj.weight" for i in range(12)]
    structure = read([*sorted(names), "model.embed_tokens.weight"])
    assert structure.layers == 12
    assert structure.place("model.layers.10.self_attn.q_proj.weight") == (10, "attn")


def test_a_missing_layer_is_refused() -> None:
    names = ["model.embed_tokens.weight", *(f"model.layers.{i}.mlp.up_proj.weight" for i in (0, 2))]
    with pytest.raises(CheckpointError, match=r"`model\.layers\.N` are not numbered 0 to 1 without a gap"):
        read(names)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no numbered layers"):
        read(["embed.weight", "out.weight"])


def test_a_model_without_an_embedding_is_refused() -> None:
    with pytest.raises(CheckpointError, match="no input embedding"):
        read(["features.0.weight", "features.1.weight", "output.weight"])
