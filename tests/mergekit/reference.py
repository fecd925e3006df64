"""What mergekit looks up for a tensor, written a second time and straight from its YAML.

As its config.py and plan.py do it (https://github.com/arcee-ai/mergekit): the source's word first, then the
slice's, then the file's; the first filter that is part of the name; anchors along the layers of the slice, a
slice of one layer at its end; what lies before the layers at the start, what lies behind them at the end.
"""

from __future__ import annotations

from typing import Any

DEPTH = 32
"""Layers of models whose number the file does not say."""

INSIDE = (
    "self_attn.q_proj.weight", "self_attn.o_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
    "input_layernorm.weight", "post_attention_layernorm.weight",
)  # fmt: skip
BEFORE = ("model.embed_tokens.weight",)
BEHIND = ("model.norm.weight", "lm_head.weight")


def lookup(setting: Any, name: str, t: float) -> Any:
    """Return what a setting says of a tensor, None if nothing."""
    if isinstance(setting, list) and isinstance(setting[0], dict):
        for entry in setting:
            if entry.get("filter") in (None, "*") or entry["filter"] in name:
                return lookup(entry["value"], name, t)
        return None
    if isinstance(setting, list):
        place = t * (len(setting) - 1)
        low = int(place)
        high = min(low + 1, len(setting) - 1)
        return setting[low] * (1 - (place - low)) + setting[high] * (place - low)
    return setting


def value(
    config: dict[str, Any], part: dict[str, Any], model: str | None, word: str, name: str, t: float
) -> Any:
    """Return a parameter at a tensor of a slice, of one model if the parameter is each model's own."""
    levels = [each for each in part["sources"] if model is not None and each["model"] == model]
    for level in (*levels, part, config):
        if word in (level.get("parameters") or {}):
            found = lookup(level["parameters"][word], name, t)
            if found is not None:
                return found
    return None


def slices(config: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the slices of a config; listed models are one of all layers."""
    if "slices" in config:
        return list(config["slices"])
    listed = [{"model": each} if isinstance(each, str) else each for each in config["models"]]
    return [{"sources": [{**each, "layer_range": [0, DEPTH]} for each in listed]}]


def places(config: dict[str, Any]) -> list[tuple[dict[str, Any], int | None, str, float]]:
    """Return slice, source layer, name and relative depth of tensors of the output, layer by layer."""
    parts = slices(config)
    found: list[tuple[dict[str, Any], int | None, str, float]] = [
        (parts[0], None, name, 0.0) for name in BEFORE
    ]
    for part in parts:
        first, stop = part["sources"][0]["layer_range"]
        for layer in range(first, stop):
            t = (layer - first) / (stop - first - 1) if stop - first > 1 else 1.0
            found += [(part, layer, f"model.layers.{layer}.{name}", t) for name in INSIDE]
    return [*found, *((parts[-1], None, name, 1.0) for name in BEHIND)]
