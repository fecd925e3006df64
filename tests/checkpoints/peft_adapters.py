"""Adapters made by PEFT itself, with random values, and what PEFT makes of them."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import AutoModelForCausalLM


def save_adapter(model: Any, folder: Path, *, seed: int = 1, **options: Any) -> Path:
    """Wrap a copy of the model, make every trained value random, and save the adapter in `folder`."""
    torch.manual_seed(seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PEFT tells of Conv1D, of tied embeddings, of saved embeddings
        wrapped = get_peft_model(
            copy.deepcopy(model),
            LoraConfig(**{"init_lora_weights": False, "r": 3, "lora_alpha": 5, **options}),
        )
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.data += 0.1 * torch.randn_like(parameter)
        wrapped.save_pretrained(str(folder))
    return folder


def merged_by_peft(model: Any, folder: Path) -> dict[str, Tensor]:
    """Return the weights that PEFT makes of the adapter in `folder` over a copy of the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        merged = PeftModel.from_pretrained(copy.deepcopy(model), folder).merge_and_unload()
    return {name: tensor.detach().clone() for name, tensor in merged.state_dict().items()}


def edit(folder: Path, **changed: Any) -> None:
    """Change keys of the adapter's config; a value of None takes the key out."""
    file = folder / "adapter_config.json"
    content = {**json.loads(file.read_text()), **changed}
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))


def load(folder: Path) -> Any:
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)


class Words(nn.Module):
    """An embedding, a square and an oblong map, and a head, none of them tied."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.emb = nn.Embedding(11, 6)
        self.fc = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11)

    def forward(self, words: Tensor) -> Tensor:
        return self.head(self.fc(self.emb(words)))  # type: ignore[no-any-return]
