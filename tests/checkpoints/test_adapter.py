"""What an adapter says that has no place in the base or no known meaning is refused, never skipped."""
# ruff: noqa: E501 - messages stand as users see them

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from evomerge.checkpoints.adapter import read_adapter
from evomerge.checkpoints.adapters import open_adapter
from evomerge.checkpoints.digest import digest, digests
from evomerge.checkpoints.edits import LowRank, Shift
from evomerge.checkpoints.folder import is_adapter, open_checkpoint
from evomerge.checkpoints.headers import TensorSpec
from evomerge.checkpoints.lora_options import read_options
from evomerge.errors import CheckpointError
from tests.checkpoints.conftest import WriteModel

CONFIG = {"peft_type": "LORA", "r": 2, "lora_alpha": 4}
BASE = {"fc.weight": (5, 3), "fc.bias": (5,), "emb.weight": (7, 3), "odd.weight": (3,)}
FC = {"fc.lora_A.weight": (2, 3), "fc.lora_B.weight": (5, 2)}


def specs(shapes: Mapping[str, tuple[int, ...]], *, dtype: str = "F32") -> dict[str, TensorSpec]:
    return {name: TensorSpec(dtype=dtype, shape=shape) for name, shape in shapes.items()}


def read(adapter: Mapping[str, tuple[int, ...]], *, tied: str | None = None, **config: Any) -> Any:
    keyed = specs({f"base_model.model.{name}": shape for name, shape in adapter.items()})
    return read_adapter({**CONFIG, **config}, keyed, specs(BASE), tied=tied)


def test_options_without_effect_on_the_maths_are_let_be() -> None:
    adapter = read(
        FC, lora_dropout=0.1, target_modules=["fc"], init_lora_weights="eva", eva_config={"rho": 2}, loftq_config={}
    )  # fmt: skip
    assert adapter.edits["fc.weight"] == (
        LowRank(
            a="base_model.model.fc.lora_A.weight",
            b="base_model.model.fc.lora_B.weight",
            scale=2.0,
            transposed=False,
        ),
    )


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"peft_type": "IA3"}, r"of type IA3 \(`peft_type`\), and only LORA"),
        ({"use_qalora": True}, "uses `use_qalora: True`"),
        ({"target_parameters": ["experts.down_proj"]}, "uses `target_parameters: "),
        ({"layer_replication": [[0, 2]]}, "uses `layer_replication: "),
        ({"alora_invocation_tokens": [1]}, "uses `alora_invocation_tokens: "),
        ({"arrow_config": {"top_k": 1}}, "uses `arrow_config: "),
        ({"invented_later": 1}, "uses `invented_later: 1`, which evomerge cannot merge"),
        ({"init_lora_weights": "pissa_niter_4"}, "`init_lora_weights: pissa_niter_4`.*weight_conversion"),
        ({"init_lora_weights": "corda"}, "taking a part out of its base"),
        ({"bias": "some"}, "`bias` of the adapter must be one of none, all, lora_only, found 'some'"),
        ({"r": 0}, "`r` of the adapter must be a whole number from 1, found 0"),
        ({"r": None}, "`r` of the adapter must be a whole number from 1, found None"),
        ({"lora_alpha": "8"}, "`lora_alpha` of the adapter must be a number, found '8'"),
        ({"rank_pattern": {"fc": 2.5}}, r"`rank_pattern\.fc` of the adapter must be a whole number"),
        ({"rank_pattern": ["fc"]}, "`rank_pattern` of the adapter must be a table by module"),
        (
            {"alpha_pattern": {"(": 1}},
            "`alpha_pattern` of the adapter must be a table by regular expressions",
        ),
        ({"modules_to_save": "head"}, "`modules_to_save` of the adapter must be a list of names"),
        ({"trainable_token_indices": [-1]}, "must be lists of token ids"),
    ],
)
def test_options_that_cannot_be_carried_out_are_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(CheckpointError, match=says):
        read(FC, **config)


@pytest.mark.parametrize(
    ("adapter", "config", "says"),
    [
        ({}, {}, "the adapter holds no tensors"),
        ({**FC, "fc.lora_C.weight": (2, 2)}, {}, r"changes `fc\.lora_C\.weight`, which its base does not have"),
        ({"gate.lora_A.weight": (2, 3), "gate.lora_B.weight": (5, 2)}, {}, r"`gate\.weight`, which its base does"),
        ({"fc.lora_A.weight": (2, 3)}, {}, r"has no `fc\.lora_B\.weight`, the other half"),
        ({"fc.lora_B.weight": (5, 2)}, {}, r"has no `fc\.lora_A\.weight`, the other half"),
        (FC, {"r": 3}, r"should have rank 3 by its config, but A is \[2, 3\] and B \[5, 2\]"),
        (FC, {"rank_pattern": {"f.": 4}}, "should have rank 4"),
        ({"fc.lora_A.weight": (2, 4), "fc.lora_B.weight": (5, 2)}, {}, r"5 × 4, and the base's `fc\.weight` is \[5, 3\]"),
        ({"odd.lora_A.weight": (2, 3), "odd.lora_B.weight": (3, 2)}, {}, "is no product of two matrices"),
        ({"emb.lora_embedding_A": (2, 3), "emb.lora_embedding_B": (7, 2)}, {}, "it belongs to another base"),
        (FC, {"use_dora": True}, r"has no `fc\.lora_magnitude_vector`, but its `use_dora` is True"),
        ({**FC, "fc.lora_magnitude_vector": (5,)}, {}, r"has a `fc\.lora_magnitude_vector`, but its `use_dora` is False"),
        ({**FC, "fc.lora_magnitude_vector": (3,)}, {"use_dora": True}, r"is \[3\], and its base needs \[5\]"),
        (FC, {"lora_bias": True}, r"has no `fc\.lora_B\.bias`, but its `lora_bias` is True"),
        ({**FC, "fc.lora_B.bias": (5,)}, {"lora_bias": False}, r"has a `fc\.lora_B\.bias`, but its `lora_bias` is False"),
        ({"emb.lora_A.weight": (2, 3), "emb.lora_B.weight": (7, 2), "emb.lora_B.bias": (7,)}, {"lora_bias": True}, r"changes `emb\.bias`, which its base does not"),
        ({"emb.weight": (8, 3)}, {}, r"is \[8, 3\], and its base needs \[7, 3\].* vocabulary that was resized"),
        ({"emb.token_adapter.trainable_tokens_delta": (1, 3)}, {}, "its config does not say which"),
        ({"emb.token_adapter.trainable_tokens_delta": (1, 3)}, {"trainable_token_indices": {"wte": [1]}}, "its config does not say which"),
        ({"emb.token_adapter.trainable_tokens_delta": (1, 3)}, {"trainable_token_indices": [7]}, r"changes token 7, and the base's `emb\.weight` has 7"),
        ({"emb.token_adapter.trainable_tokens_delta": (2, 3)}, {"trainable_token_indices": [1]}, r"is \[2, 3\], and its base needs \[1, 3\]"),
    ],
)  # fmt: skip
def test_tensors_that_do_not_fit_base_or_config_are_refused(
    adapter: dict[str, tuple[int, ...]], config: dict[str, Any], says: str
) -> None:
    with pytest.raises(CheckpointError, match=says):
        read(adapter, **config)


def test_names_and_dtypes_that_are_not_of_peft_are_refused() -> None:
    with pytest.raises(CheckpointError, match=r"`lora_te_fc\.weight` of the adapter has no known meaning"):
        read_adapter(CONFIG, specs({"lora_te_fc.weight": (2, 2)}), specs(BASE))
    keyed = {f"base_model.model.{name}": shape for name, shape in FC.items()}
    with pytest.raises(CheckpointError, match=r"fc\.lora_A\.weight` of the adapter is I8, which is no float"):
        read_adapter(CONFIG, specs(keyed, dtype="I8"), specs(BASE))


def test_an_embedding_trained_away_from_its_head_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"saves `emb\.weight` whole, but not the output head"):
        read({"emb.weight": (7, 3)}, tied="emb.weight", modules_to_save=["emb"])


def test_products_for_embedding_and_head_of_a_tied_base_are_refused_unless_peft_tied_them() -> None:
    both = {
        "emb.lora_embedding_A": (2, 7), "emb.lora_embedding_B": (3, 2),
        "lm_head.lora_A.weight": (2, 3), "lm_head.lora_B.weight": (7, 2),
    }  # fmt: skip
    with pytest.raises(CheckpointError, match=r"are one tensor \(`emb\.weight`\) in its base"):
        read(both, tied="emb.weight")
    tied = read(both, tied="emb.weight", ensure_weight_tying=True).edits["emb.weight"]
    assert [edit.a for edit in tied] == ["base_model.model.emb.lora_embedding_A"]


def test_the_first_pattern_that_matches_the_end_of_a_name_counts() -> None:
    options = read_options(
        {**CONFIG, "rank_pattern": {"layers.0.q": 3, "q": 5}, "alpha_pattern": {"^q": 9, "k": 7}}
    )
    ranks = [options.rank_of(name) for name in ("model.layers.0.q", "model.layers.1.q", "model.layers.1.faq")]
    assert ranks == [3, 5, 2]
    assert [options.scale_of(name) for name in ("q", "a.k")] == [9 / 5, 7 / 2]


def test_a_pattern_that_takes_for_ever_is_given_up() -> None:
    options = read_options({**CONFIG, "rank_pattern": {r"(\w|.)+\W\W": 3}})
    with pytest.raises(CheckpointError, match="takes for ever to be matched with `model"):
        options.rank_of("model.layers.0.self_attn.q_proj")


@pytest.fixture
def place(write_model: WriteModel, llama_shapes: Callable[..., Any], write_file: Callable[..., Path]) -> Path:
    """A base and an adapter of it, side by side."""
    base = write_model("base", llama_shapes())
    folder = base.parent / "adapter"
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps(CONFIG))
    name = "base_model.model.model.layers.1.mlp.up_proj"
    write_file(
        folder / "adapter_model.safetensors",
        {f"{name}.lora_A.weight": (2, 3), f"{name}.lora_B.weight": (5, 2)},
    )
    return base.parent


def test_an_adapter_looks_like_its_base_and_is_told_apart_by_its_files(
    place: Path, write_file: Callable[..., Path]
) -> None:
    base = open_checkpoint(place / "base")
    adapted = open_adapter(place / "adapter", base)
    assert (adapted.path, adapted.home) == (place / "adapter", place / "base")
    assert (adapted.specs, adapted.config) == (base.specs, base.config)
    assert is_adapter(place / "adapter")
    assert not is_adapter(place / "base")
    before = digests({"base": base, "adapted": adapted})
    assert before == {"base": digest(base), "adapted": digest(adapted)}
    assert len(set(before.values())) == 2
    (place / "base" / "tokenizer.json").write_text('{"model": {"vocab": {"c": 0}}}')
    assert digest(adapted) != before["adapted"]


def test_a_tokenizer_in_the_adapter_must_be_that_of_the_base(place: Path) -> None:
    base = open_checkpoint(place / "base")
    own = place / "adapter" / "tokenizer.json"
    own.write_text((place / "base" / "tokenizer.json").read_text())
    open_adapter(place / "adapter", base)
    own.write_text('{"model": {"vocab": {"a": 0, "b": 1, "c": 2}}}')
    with pytest.raises(CheckpointError, match="a tokenizer whose vocabulary is not that of its base"):
        open_adapter(place / "adapter", base)


def test_an_adapter_that_cannot_be_read_is_refused(place: Path) -> None:
    base, folder = open_checkpoint(place / "base"), place / "adapter"
    with pytest.raises(CheckpointError, match="no adapter folder at"):
        open_adapter(place / "nowhere", base)
    with pytest.raises(CheckpointError, match="which is itself an adapter"):
        open_adapter(folder, open_adapter(folder, base))
    with pytest.raises(CheckpointError, match="is a LoRA adapter, not a whole model"):
        open_checkpoint(folder)
    (folder / "adapter_config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="is not the config of an adapter"):
        open_adapter(folder, base)
    (folder / "adapter_config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"adapter_config\.json is not JSON"):
        open_adapter(folder, base)
    (folder / "adapter_config.json").write_text('{"peft_type": "VERA"}')
    with pytest.raises(CheckpointError, match=r"/adapter: the adapter is of type VERA"):
        open_adapter(folder, base)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"it has no adapter_model\.safetensors"):
        open_adapter(folder, base)


@pytest.mark.parametrize("said", [{"lora_bias": True}, {}], ids=["said", "not said"])
def test_a_bias_of_b_is_scaled_as_its_product(said: dict[str, Any]) -> None:
    adapter = read({**FC, "fc.lora_B.bias": (5,)}, **said, use_rslora=True)
    assert adapter.edits["fc.bias"] == (Shift(value="base_model.model.fc.lora_B.bias", scale=4 / 2**0.5),)
