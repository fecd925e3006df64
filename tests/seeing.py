"""Vision-language models of nine families, each of a few thousand random numbers, and their LLMs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers

from evomerge.checkpoints.locate import ZOO

LAYERS, SEEING_LAYERS = 2, 3
ROWS = 24
TEXT: dict[str, Any] = {
    "vocab_size": ROWS, "hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": LAYERS,
    "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6, "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
}  # fmt: skip
HEADS_OF_4 = {**TEXT, "head_dim": 4}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0]}}
VIT: dict[str, Any] = {
    "hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": SEEING_LAYERS, "num_attention_heads": 2,
    "image_size": 8, "patch_size": 4,
}  # fmt: skip
QWEN: dict[str, Any] = {"depth": SEEING_LAYERS, "hidden_size": 8, "num_heads": 2, "patch_size": 4}
QWEN_WORDS = {"image_token_id": ROWS - 1, "video_token_id": ROWS - 2, "vision_start_token_id": ROWS - 3}


@dataclass(frozen=True, kw_only=True)
class Family:
    """The configs of the towers, what else the model's config says, and the type of its plain LLM."""

    llm: str
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    rest: Mapping[str, Any]


def image_at(row: int, **rest: Any) -> dict[str, Any]:
    return {"image_token_id": row, **rest}


FAMILIES: Mapping[str, Family] = {
    "llava": Family(
        llm="llama",
        text={"model_type": "llama", **TEXT},
        vision={"model_type": "clip_vision_model", **VIT},
        rest={"image_token_index": ROWS - 1, "tie_word_embeddings": False},
    ),
    "llava_next": Family(
        llm="mistral",
        text={"model_type": "mistral", **TEXT},
        vision={"model_type": "clip_vision_model", **VIT},
        rest={
            "image_token_index": ROWS - 1,
            "image_grid_pinpoints": [[8, 8]],
            "tie_word_embeddings": False,
        },
    ),
    "mistral3": Family(
        llm="mistral",
        text={"model_type": "mistral", **HEADS_OF_4},
        vision={"model_type": "pixtral", **VIT, "head_dim": 4},
        rest={"image_token_index": ROWS - 1, "tie_word_embeddings": False},
    ),
    "internvl": Family(
        llm="qwen2",
        text={"model_type": "qwen2", **TEXT},
        vision={"model_type": "internvl_vision", **VIT, "image_size": [8, 8], "patch_size": [4, 4]},
        rest=image_at(ROWS - 1, tie_word_embeddings=False),
    ),
    "gemma3": Family(
        llm="gemma3_text",
        text={"model_type": "gemma3_text", **HEADS_OF_4},
        vision={"model_type": "siglip_vision_model", **VIT},
        rest={
            "mm_tokens_per_image": 4,
            "image_token_index": ROWS - 1,
            "boi_token_index": ROWS - 2,
            "eoi_token_index": ROWS - 3,
        },
    ),
    "qwen2_vl": Family(
        llm="qwen2", text={**TEXT, **MROPE}, vision={**QWEN, "embed_dim": 8, "mlp_ratio": 1}, rest=QWEN_WORDS
    ),
    "qwen2_5_vl": Family(
        llm="qwen2",
        text={**TEXT, **MROPE},
        vision={**QWEN, "out_hidden_size": 8, "intermediate_size": 8, "fullatt_block_indexes": [0]},
        rest=QWEN_WORDS,
    ),
    "qwen3_vl": Family(
        llm="qwen3",
        text={**HEADS_OF_4, **MROPE},
        vision={
            **QWEN,
            "out_hidden_size": 8,
            "intermediate_size": 8,
            "num_position_embeddings": 4,
            "deepstack_visual_indexes": [0],
        },
        rest=QWEN_WORDS,
    ),
    "idefics3": Family(
        llm="llama",
        text={"model_type": "llama", **TEXT},
        vision=VIT,
        rest=image_at(ROWS - 1, scale_factor=1),
    ),
}


def seeing_model(name: str, *, seed: int = 0, **changed: Any) -> Any:
    """Return a live vision-language model of random numbers; `changed` are keys of its text config."""
    family = FAMILIES[name]
    config = transformers.AutoConfig.for_model(
        name, text_config={**family.text, **changed}, vision_config=dict(family.vision), **family.rest
    )
    return _random(transformers.AutoModelForImageTextToText, config, seed)


def plain_model(name: str, *, seed: int = 0, **changed: Any) -> Any:
    """Return a live LLM of random numbers as it stands in the family's vision-language models."""
    family = FAMILIES[name]
    told = {key: value for key, value in family.text.items() if key != "model_type"}
    if MROPE.items() <= told.items():
        told |= {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}
    config = transformers.AutoConfig.for_model(family.llm, **{**told, **changed})
    return _random(transformers.AutoModelForCausalLM, config, seed)


def _random(auto: Any, config: Any, seed: int) -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = auto.from_config(config)
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.add_(torch.randn(value.shape) * 0.1)
    return model.eval()


def saved(model: Any, folder: Path) -> Path:
    """Return the folder after saving the model there."""
    model.save_pretrained(folder)
    return folder


def seeing_expert(folder: Path) -> Path:
    """Return the folder of the zoo's maths expert with eyes: a word for images, and a few spare rows."""
    zoo = ZOO / "models" / "math"
    tokenizer = transformers.AutoTokenizer.from_pretrained(zoo)
    expert: Any = transformers.AutoModelForCausalLM.from_pretrained(zoo, dtype="bfloat16")
    image = tokenizer.add_tokens(["<image>"], special_tokens=True) + expert.config.vocab_size - 1
    text = {**json.loads((zoo / "config.json").read_text()), "vocab_size": image + 8}
    config = transformers.AutoConfig.for_model(
        "llava",
        text_config=text,
        vision_config=dict(FAMILIES["llava"].vision),
        image_token_index=image,
        tie_word_embeddings=False,
    )
    model = _random(transformers.AutoModelForImageTextToText, config, 0).to(torch.bfloat16)
    own = model.state_dict()
    with torch.no_grad():
        for name, value in expert.state_dict().items():
            place = name if name in own else name.replace("model.", "model.language_model.", 1)
            own[place][: len(value)].copy_(value)
    tokenizer.save_pretrained(saved(model, folder))
    (folder / "processor_config.json").write_text(json.dumps({"processor_class": "LlavaProcessor"}))
    (folder / "preprocessor_config.json").write_text(json.dumps({"crop_size": 8}))
    return folder
