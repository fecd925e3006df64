"""Which rows of which model stand where, and what is built once only."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest

from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.vocabulary import Vocabulary, merged_vocabulary, with_special
from evomerge.errors import CheckpointError, RecipeError
from tests.checkpoints.making import edit_config, save_model, word_level

ONE, OTHER = ["a", "b"], ["b", "x", "a", "y"]
LACKS = -1


@pytest.fixture
def models(tmp_path: Path) -> dict[str, Checkpoint]:
    """Two models of five and seven tokens, with one and two rows of padding."""
    save_model(tmp_path / "one", word_level(ONE), seed=0, rows=6)
    save_model(tmp_path / "other", word_level(OTHER), seed=1, rows=9)
    return {name: open_checkpoint(tmp_path / name) for name in ("one", "other")}


def found(models: dict[str, Checkpoint], tokenizer: str | None, base: str | None = "one") -> Vocabulary:
    vocabulary = merged_vocabulary(tokenizer, template="one", base=base, models=models)
    assert vocabulary is not None
    return vocabulary


def own(vocabulary: Vocabulary) -> dict[str, list[int]]:
    rows = {"one": 6, "other": 9}
    return {name: vocabulary.own_rows(name, count).tolist() for name, count in rows.items()}


def test_the_same_number_of_rows_and_no_word_on_tokens_is_nothing_to_do(
    models: dict[str, Checkpoint],
) -> None:
    assert merged_vocabulary(None, template="one", base="one", models={"one": models["one"]}) is None


def test_padding_follows_the_template(models: dict[str, Checkpoint]) -> None:
    assert own(found(models, None)) == {"one": [0, 1, 2, 3, 4, 5], "other": [0, 1, 2, 3, 4, 5]}
    other = merged_vocabulary(None, template="other", base=None, models=models)
    assert other is not None
    assert (other.length, other.base) == (9, "other")
    assert own(other)["one"] == [0, 1, 2, 3, 4, 5, LACKS, LACKS, LACKS]


def test_base_matches_the_templates_tokens_and_keeps_its_rows(models: dict[str, Checkpoint]) -> None:
    vocabulary = found(models, "base")
    assert own(vocabulary) == {"one": [0, 1, 2, 3, 4, 5], "other": [0, 1, 2, 5, 3, LACKS]}
    assert vocabulary.special is None


def test_union_puts_new_tokens_behind_the_templates(models: dict[str, Checkpoint]) -> None:
    vocabulary = found(models, "union")
    assert vocabulary.length == 7  # <s> </s> <unk> a b x y; what was padding of the template is now x
    assert own(vocabulary) == {"one": [0, 1, 2, 3, 4, LACKS, LACKS], "other": [0, 1, 2, 5, 3, 4, 6]}


def test_union_keeps_padding_it_does_not_need(models: dict[str, Checkpoint], tmp_path: Path) -> None:
    save_model(tmp_path / "wide", word_level(ONE), seed=0, rows=16)
    models["one"] = open_checkpoint(tmp_path / "wide")
    vocabulary = found(models, "union")
    assert vocabulary.length == 16
    assert vocabulary.own_rows("one", 16).tolist()[5:] == [LACKS, LACKS, *range(7, 16)]
    assert vocabulary.own_rows("other", 9).tolist()[7:] == [LACKS] * 9


def test_a_models_name_gives_that_models_tokens_rows_and_special_ids(
    models: dict[str, Checkpoint], tmp_path: Path
) -> None:
    edit_config(tmp_path / "other", eos_token_id=[1, 2])
    vocabulary = found(models, "other")
    assert (vocabulary.length, vocabulary.base) == (9, "one")
    assert own(vocabulary)["one"] == [0, 1, 2, 4, LACKS, 3, LACKS, LACKS, LACKS]
    assert vocabulary.special == {"bos_token_id": 0, "eos_token_id": [1, 2], "pad_token_id": 1}


def test_a_row_map_is_none_where_nothing_moves(models: dict[str, Checkpoint]) -> None:
    vocabulary = found(models, "base")
    rows = (("one", 6), ("other", 9))
    assert vocabulary.row_map("one", rows) is None
    moved = vocabulary.row_map("other", rows)
    assert moved is not None
    assert moved is vocabulary.row_map("other", rows)
    own_pick, from_base = moved.picks
    assert (own_pick.model, own_pick.source.tolist()) == ("other", [0, 1, 2, 5, 3])
    assert (from_base.model, from_base.source.tolist(), from_base.target.tolist()) == ("one", [5], [5])


def test_it_is_built_once_for_as_long_as_the_folders_stay_the_same(
    models: dict[str, Checkpoint], tmp_path: Path
) -> None:
    first = found(models, "union")
    assert found(models, "union") is first
    save_model(tmp_path / "other", word_level([*OTHER, "zz"]), seed=1, rows=9)
    assert found(models, "union").length == 8


def test_tokens_are_found_by_string_wherever_their_ids_lie(models: dict[str, Checkpoint]) -> None:
    theirs, ours = (found(models, "base").tokens or {})["other"]
    table = json.loads((models["one"].path / "tokenizer.json").read_text())["model"]["vocab"]
    other = json.loads((models["other"].path / "tokenizer.json").read_text())["model"]["vocab"]
    assert {table[token]: other[token] for token in table} == dict(zip(ours, theirs, strict=True))
    assert theirs.dtype == np.int64


def test_a_model_that_knows_few_of_the_tokens_is_told(
    models: dict[str, Checkpoint], caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    save_model(tmp_path / "far", word_level([f"w{i}" for i in range(20)]), seed=2)
    with caplog.at_level(logging.WARNING):
        merged_vocabulary(
            "base",
            template="far",
            base=None,
            models={"far": open_checkpoint(tmp_path / "far"), "one": models["one"]},
        )
    assert "`one` knows 3 of the merged model's 23 tokens" in caplog.text


def test_a_tokenizer_of_nobody_is_refused(models: dict[str, Checkpoint]) -> None:
    with pytest.raises(RecipeError, match=r"`tokenizer` is `base`, `union` or a model .* `othr`.*`other`"):
        found(models, "othr")


def test_tokens_that_cannot_be_read_are_refused(models: dict[str, Checkpoint], tmp_path: Path) -> None:
    (tmp_path / "other" / "tokenizer.json").rename(tmp_path / "other" / "tokenizer.model")
    with pytest.raises(CheckpointError, match=r"tokens of `other` cannot be matched"):
        found(models, "base")


def test_special_ids_are_replaced_as_a_whole() -> None:
    config = {"bos_token_id": 1, "pad_token_id": 2, "temperature": 0.5}
    assert with_special(config, {"eos_token_id": 7}) == {"temperature": 0.5, "eos_token_id": 7}
