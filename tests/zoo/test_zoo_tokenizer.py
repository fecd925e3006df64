"""Every word is one token, wherever a prompt is cut."""

from pathlib import Path

import pytest
from transformers import AutoTokenizer

from evomerge.zoo.items import choice_items, last_word_items
from evomerge.zoo.language import LANGUAGES, Language, vocabulary
from evomerge.zoo.tokenizer import save_tokenizer, word_tokenizer


def test_every_word_is_one_token_and_decodes_to_itself() -> None:
    tokenizer = word_tokenizer()
    for word in vocabulary():
        (token,) = tokenizer.encode(word)
        assert token != tokenizer.unk_token_id
        assert tokenizer.decode([token]) == word


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_context_and_its_continuation_are_cut_at_the_word(language: Language) -> None:
    tokenizer = word_tokenizer()
    items = [
        (item["prompt"], option) for item in choice_items("math", language, 50) for option in item["options"]
    ]
    items += [(item["prompt"], item["last"]) for item in last_word_items(language, 50)]
    for prompt, word in items:
        context, whole = tokenizer.encode(prompt), tokenizer.encode(f"{prompt} {word}")
        assert whole[:-1] == context
        assert whole[-1:] == tokenizer.encode(word)


def test_text_survives_a_round_trip_and_gets_no_special_tokens() -> None:
    tokenizer = word_tokenizer()
    text = choice_items("math", "b", 1)[0]["prompt"]
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_a_saved_tokenizer_loads_plainly(tmp_path: Path) -> None:
    tokenizer = word_tokenizer()
    save_tokenizer(tokenizer, tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    text = "ken wa hon o 9 satsu motte imasu ."
    assert loaded.encode(text) == tokenizer.encode(text)
    assert (loaded.padding_side, loaded.pad_token, loaded.bos_token, loaded.eos_token) == (
        "left",
        "<pad>",
        "<s>",
        "</s>",
    )
