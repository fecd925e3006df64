"""Real tokenizers, trained in milliseconds, and tiny models that speak them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

SPECIAL = ("<s>", "</s>")
ENGLISH = ("the cat sat on the mat", "the dog ran on the mat", "no cats and no dogs are singing")
GERMAN = ("die katze sitzt auf der matte", "der hund lief auf die matte", "zwei katzen singen nicht")


def byte_bpe(texts: Sequence[str], *, size: int = 290) -> Tokenizer:
    core = Tokenizer(models.BPE())
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=size, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return core


def unigram(texts: Sequence[str], *, size: int = 40) -> Tokenizer:
    core = Tokenizer(models.Unigram())
    core.pre_tokenizer = pre_tokenizers.Metaspace()
    core.decoder = decoders.Metaspace()
    trainer = trainers.UnigramTrainer(
        vocab_size=size, special_tokens=["<unk>", *SPECIAL], unk_token="<unk>", show_progress=False
    )
    core.train_from_iterator(texts, trainer)
    return core


def word_level(words: Sequence[str]) -> Tokenizer:
    table = {word: i for i, word in enumerate([*SPECIAL, "<unk>", *words])}
    core = Tokenizer(models.WordLevel(table, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    core.add_special_tokens(list(SPECIAL))
    return core


def special(token: str) -> AddedToken:
    return AddedToken(token, special=True, normalized=False)


def save_tokenizer(folder: Path, core: Tokenizer) -> dict[str, int]:
    """Write the tokenizer into `folder` and return its table."""
    PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=core, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    ).save_pretrained(folder)
    return dict(core.get_vocab())


def save_model(
    folder: Path,
    core: Tokenizer,
    *,
    seed: int,
    rows: int | None = None,
    tied: bool = False,
    family: str = "llama",
    **config: Any,
) -> Path:
    """Write a tiny model with `rows` embedding rows (default: one per token) and its tokenizer."""
    table = save_tokenizer(folder, core)
    ids = {"bos_token_id": table["<s>"], "eos_token_id": table["</s>"], "pad_token_id": table["</s>"]}
    sizes: dict[str, Any] = {
        "vocab_size": rows or 1 + max(table.values()), "hidden_size": 8, "intermediate_size": 12,
        "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
        "max_position_embeddings": 64, "tie_word_embeddings": tied, **ids, **config,
    }  # fmt: skip
    torch.manual_seed(seed)
    made = transformers.AutoConfig.for_model(family, **sizes)
    model = transformers.AutoModelForCausalLM.from_config(made)  # type: ignore[no-untyped-call]
    model.save_pretrained(folder)
    return folder


def edit_config(folder: Path, name: str = "config.json", **changed: Any) -> None:
    file = folder / name
    file.write_text(json.dumps({**json.loads(file.read_text()), **changed}))
