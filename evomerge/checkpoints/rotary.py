"""What a config says of rotary positions, in one form whichever version of transformers wrote it."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

from huggingface_hub.errors import StrictDataclassError

_KEYS = (
    "rope_theta", "rope_scaling", "rope_parameters", "rope_local_base_freq", "partial_rotary_factor",
    "rotary_emb_base", "rotary_pct", "rotary_dim", "max_position_embeddings",
    "original_max_position_embeddings",
)  # fmt: skip
"""What transformers (5.23) reads them from."""


def rotary(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings of rotary positions, defaults of the model's type filled in; empty without any."""
    said = {key: config[key] for key in _KEYS if config.get(key) is not None}
    return copy.deepcopy(_completed(str(config["model_type"]), json.dumps(said, sort_keys=True)))


@cache
def _completed(model_type: str, said: str) -> dict[str, Any]:
    from transformers import CONFIG_MAPPING

    settings = json.loads(said)
    try:
        full = CONFIG_MAPPING[model_type](**settings) if model_type in CONFIG_MAPPING else None
    except StrictDataclassError:  # loading will say what is wrong; until then they are compared as they are
        full = None
    if full is None:
        return {key: value for key, value in settings.items() if not key.endswith("position_embeddings")}
    found = dict(getattr(full, "rope_parameters", None) or {})
    found.pop("type", None)  # an older name of `rope_type`
    return found | {key: getattr(full, key) for key in ("rotary_dim",) if hasattr(full, key)}
