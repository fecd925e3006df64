"""The union of real tokenizers, as AutoTokenizer loads it."""

import logging
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from evomerge.checkpoints.tokenizer import TokenizerFiles, token_table, union, words_digest
from evomerge.errors import CheckpointError
from tests.checkpoints.making import (
    ENGLISH,
    GERMAN,
    byte_bpe,
    edit_config,
    save_tokenizer,
    special,
    unigram,
    word_level,
)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    return {name: tmp_path / name for name in ("one", "other")}


def made(folders: dict[str, Path], one: Tokenizer, other: Tokenizer) -> tuple[Any, dict[str, int]]:
    """Return the union as transformers loads it, and the table that was announced."""
    save_tokenizer(folders["one"], one)
    save_tokenizer(folders["other"], other)
    files, table = union(folders)
    target = folders["one"].parent / "union"
    target.mkdir()
    files.write(target)
    return AutoTokenizer.from_pretrained(target), dict(table)


@pytest.mark.parametrize("train", [byte_bpe, unigram])
def test_a_union_has_the_firsts_ids_then_the_new_tokens(train: Any, folders: dict[str, Path]) -> None:
    one, other = train(ENGLISH), train(GERMAN)
    other.add_special_tokens([special("<call>")])
    other.add_tokens(["<list>"])
    loaded, table = made(folders, one, other)
    assert loaded.get_vocab() == table
    assert one.get_vocab().items() <= table.items()
    new = sorted(other.get_vocab().keys() - one.get_vocab().keys(), key=other.get_vocab().__getitem__)
    assert [table[token] for token in new] == list(range(len(one.get_vocab()), len(table)))


@pytest.mark.parametrize("train", [byte_bpe, unigram])
def test_added_tokens_match_as_whole_strings_and_stay_special(train: Any, folders: dict[str, Path]) -> None:
    one, other = train(ENGLISH), train(GERMAN)
    other.add_special_tokens([special("<call>")])
    other.add_tokens(["<list>"])
    loaded, table = made(folders, one, other)
    text = "the cat<call>sat<list>"
    ids = loaded.encode(text)
    assert ids.count(table["<call>"]) == ids.count(table["<list>"]) == 1
    assert loaded.decode(ids).replace(" ", "") == text.replace(" ", "")
    assert "<call>" not in loaded.decode(ids, skip_special_tokens=True)
    assert "<list>" in loaded.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("train", [byte_bpe, unigram])
def test_text_of_the_first_is_cut_as_before_where_no_new_token_is_in_it(
    train: Any, folders: dict[str, Path]
) -> None:
    one = train(ENGLISH)
    other = train(ENGLISH)
    other.add_special_tokens([special("<call>")])
    loaded, _ = made(folders, one, other)
    for text in ENGLISH:
        assert loaded.encode(text) == one.encode(text).ids


@pytest.mark.parametrize("kind", ["Qwen2Tokenizer", "LlamaTokenizer", "GPT2Tokenizer"])
def test_classes_that_build_their_tokenizer_anew_keep_the_ids(kind: str, folders: dict[str, Path]) -> None:
    one, other = byte_bpe(ENGLISH), byte_bpe(GERMAN)
    other.add_special_tokens([special("<call>")])
    save_tokenizer(folders["one"], one)
    save_tokenizer(folders["other"], other)
    edit_config(folders["one"], "tokenizer_config.json", tokenizer_class=kind)
    files, table = union(folders)
    target = folders["one"].parent / "union"
    target.mkdir()
    files.write(target)
    loaded = AutoTokenizer.from_pretrained(target)
    assert {token: loaded.convert_tokens_to_ids(token) for token in table} == table
    assert loaded.encode("<call>", add_special_tokens=False) == [table["<call>"]]


def test_words_are_known_wherever_they_stand(
    folders: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    loaded, table = made(folders, word_level(["the", "cat"]), word_level(["cat", "on", "the"]))
    assert list(table) == ["<s>", "</s>", "<unk>", "the", "cat", "on"]
    assert loaded.tokenize("the cat on onto") == ["the", "cat", "on", "<unk>"]
    assert caplog.text == ""  # nothing is lost


def test_lost_merges_are_told(folders: dict[str, Path], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        made(folders, byte_bpe(ENGLISH), byte_bpe(GERMAN))
    assert "`tokenizer: union` keeps the merges of `one` only" in caplog.text


def test_vocabularies_that_spell_spaces_differently_are_refused(folders: dict[str, Path]) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"`tokenizer: union` of `one` and `other` is impossible: byte-level \(`Ġ`\) and Sentence",
    ):
        made(folders, byte_bpe(ENGLISH), unigram(ENGLISH))


def test_ids_the_library_would_not_give_are_refused(folders: dict[str, Path]) -> None:
    one = unigram(ENGLISH)
    one.add_tokens(["<a>"])
    save_tokenizer(folders["one"], one)
    save_tokenizer(folders["other"], unigram(GERMAN))
    file = folders["one"] / "tokenizer.json"
    number = one.get_vocab()["<a>"]
    file.write_text(file.read_text().replace(f'"id": {number},', f'"id": {number + 9},'))
    with pytest.raises(CheckpointError, match="ids have gaps; use `tokenizer: base`"):
        union(folders)


def test_what_repeats_the_table_is_left_out_of_a_union_only(folders: dict[str, Path], tmp_path: Path) -> None:
    save_tokenizer(folders["one"], word_level(["a"]))
    save_tokenizer(folders["other"], word_level(["b"]))
    for name in ("tokenizer.model", "chat_template.jinja"):
        (folders["one"] / name).write_text("old")
    for target, files in (("union", union(folders)[0]), ("plain", TokenizerFiles(folder=folders["one"]))):
        (tmp_path / target).mkdir()
        files.write(tmp_path / target)
    assert not (tmp_path / "union" / "tokenizer.model").exists()
    assert (tmp_path / "union" / "chat_template.jinja").read_text() == "old"
    assert (tmp_path / "plain" / "tokenizer.model").read_text() == "old"


def test_the_digest_of_words_tells_a_union_from_its_first(folders: dict[str, Path], tmp_path: Path) -> None:
    save_tokenizer(folders["one"], word_level(["a"]))
    save_tokenizer(folders["other"], word_level(["b"]))
    plain = TokenizerFiles(folder=folders["one"])
    assert words_digest(union(folders)[0]) == words_digest(union(folders)[0]) != words_digest(plain)


def test_tokens_need_a_tokenizer_json(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"words")
    with pytest.raises(CheckpointError, match=r"tokens of `lang` cannot be matched: .* no tokenizer\.json"):
        token_table("lang", tmp_path)
