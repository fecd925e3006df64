"""What configs say of rotary positions, in one form."""

from typing import Any

import pytest

from evomerge.checkpoints.rotary import rotary

DEFAULT = {"rope_theta": 10000.0, "rope_type": "default"}


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"model_type": "llama"}, DEFAULT),
        ({"model_type": "llama", "rope_theta": None, "rope_scaling": None}, DEFAULT),
        ({"model_type": "llama", "rope_theta": 5.0}, {**DEFAULT, "rope_theta": 5.0}),
        (
            {"model_type": "llama", "rope_scaling": {"type": "linear", "factor": 2.0}},
            {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0},
        ),
        ({"model_type": "gpt_neox", "rotary_pct": 0.5, "rotary_emb_base": 3},
         {"rope_theta": 3, "rope_type": "default", "partial_rotary_factor": 0.5}),
        ({"model_type": "gptj", "rotary_dim": 8}, {"rotary_dim": 8}),
        ({"model_type": "gpt2"}, {}),
        ({"model_type": "unheard_of", "rope_theta": 3.0, "max_position_embeddings": 8}, {"rope_theta": 3.0}),
        ({"model_type": "llama", "rope_scaling": 3}, {"rope_scaling": 3}),
    ],
)  # fmt: skip
def test_positions_are_told_in_one_form(config: dict[str, Any], expected: dict[str, Any]) -> None:
    assert rotary(config) == expected


def test_positions_of_several_kinds_of_layers_are_all_told() -> None:
    old = {"model_type": "gemma3_text", "rope_theta": 7.0, "rope_local_base_freq": 3.0}
    found = rotary(old)
    assert (found["full_attention"]["rope_theta"], found["sliding_attention"]["rope_theta"]) == (7.0, 3.0)
    assert rotary({"model_type": "gemma3_text", "rope_parameters": found}) == found


def test_a_config_is_not_written_to() -> None:
    scaling = {"type": "linear", "factor": 2.0}
    rotary({"model_type": "llama", "rope_scaling": scaling})["factor"] = 9.0
    assert scaling == {"type": "linear", "factor": 2.0}
    assert rotary({"model_type": "llama", "rope_scaling": scaling})["factor"] == 2.0
