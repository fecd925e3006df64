"""Accuracy on multiple-choice items in one forward pass a batch: every option is a single token."""

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from evomerge.zoo.items import Item


@torch.inference_mode()
def accuracy(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, items: Sequence[Item], *, batch: int = 200
) -> float:
    """The share of `items` whose right option the model finds likeliest."""
    right = 0
    for start in range(0, len(items), batch):
        part = items[start : start + batch]
        logits = _last_logits(model, tokenizer, [item["prompt"] for item in part])
        choices = torch.tensor([tokenizer.convert_tokens_to_ids(item["options"]) for item in part])
        best = logits.gather(1, choices).argmax(1).tolist()
        right += sum(item["gold"] == found for item, found in zip(part, best, strict=True))
    return right / len(items)


def _last_logits(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, prompts: list[str]
) -> torch.Tensor:
    """Logits (prompts, vocabulary) after the last token of each prompt, float32."""
    encoded = tokenizer(prompts, return_tensors="pt", padding=True, padding_side="left")
    mask = encoded["attention_mask"]
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    out = model(
        input_ids=encoded["input_ids"],
        attention_mask=mask,
        position_ids=positions,
        use_cache=False,
        logits_to_keep=1,
    )
    logits: torch.Tensor = out.logits[:, -1]
    return logits.float()
