"""LoRA adapters of the zoo: what an expert learnt beyond the base, as PEFT would have saved it.

A task vector's best approximation of a given rank is cut from its singular value decomposition (Eckart and
Young 1936, https://doi.org/10.1007/BF02288367), tensor by tensor, as tools that extract adapters do.
Embedding and head are kept whole: words are no low-rank change of them.
"""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evomerge.zoo.card import write_card
from evomerge.zoo.catalog import ADAPTERS, BASE

_WHOLE = ("embed_tokens", "lm_head")
_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
_PREFIX = "base_model.model."


def write_adapter(models: Path, name: str) -> None:
    """Write the adapter `name` beside the base and the expert it is cut from, in the folder `models`."""
    expert, rank = ADAPTERS[name]
    base, tuned = (load_file(models / each / "model.safetensors") for each in (BASE, expert))
    folder = models / name
    folder.mkdir()
    save_file(dict(_tensors(base, tuned, rank)), folder / "adapter_model.safetensors", {"format": "pt"})
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": f"zoo:{BASE}",
        "r": rank,
        "lora_alpha": rank,  # so that B·A counts once
        "target_modules": list(_MODULES),
        "modules_to_save": list(_WHOLE),
        "inference_mode": True,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    write_card(folder, name)


def _tensors(
    base: Mapping[str, Tensor], tuned: Mapping[str, Tensor], rank: int
) -> Iterator[tuple[str, Tensor]]:
    """Yield the adapter's tensors under PEFT's names."""
    for name, before in base.items():
        module = name.removesuffix(".weight")
        if module.endswith(_WHOLE):
            yield f"{_PREFIX}{name}", tuned[name].contiguous()
        elif module.endswith(_MODULES):
            down, up = _factors(tuned[name].float() - before.float(), rank)
            yield f"{_PREFIX}{module}.lora_A.weight", down.to(before.dtype)
            yield f"{_PREFIX}{module}.lora_B.weight", up.to(before.dtype)


def _factors(delta: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Return A `(rank, in)` and B `(out, rank)` whose product B·A is nearest to `delta (out, in)`."""
    left, size, right = torch.linalg.svd(delta, full_matrices=False)
    root = size[:rank].sqrt()
    return (root[:, None] * right[:rank]).contiguous(), (left[:, :rank] * root).contiguous()
