"""Models that see may be merged with the LLMs they were built from, and with one another of their kind."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.checkpoints.compatible import check_compatible
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.errors import CheckpointError
from tests.seeing import FAMILIES, LAYERS, ROWS, plain_model, saved, seeing_model

WORDS = {f"w{row}": row for row in range(ROWS - 1)}
Make = Callable[..., Checkpoint]


@pytest.fixture
def seeing(tmp_path: Path) -> Make:
    """Return a function that gives a family's model that sees, with the words of LLMs and one for images."""

    def make(family: str = "llava", **changed: Any) -> Checkpoint:
        folder = saved(seeing_model(family, **changed), tmp_path / f"seeing-{family}")
        return with_words(folder, {**WORDS, "<image>": ROWS - 1})

    return make


@pytest.fixture
def plain(tmp_path: Path) -> Make:
    """Return a function that gives the LLM inside a family's model that sees."""

    def make(family: str = "llava", *, words: dict[str, int] = WORDS, **changed: Any) -> Checkpoint:
        return with_words(saved(plain_model(family, **changed), tmp_path / f"plain-{family}"), words)

    return make


def with_words(folder: Path, words: dict[str, int]) -> Checkpoint:
    (folder / "tokenizer.json").write_text(json.dumps({"model": {"vocab": words}}))
    return open_checkpoint(folder)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_llm_of_a_family_fits_either_way_round(family: str, seeing: Make, plain: Make) -> None:
    models = {"llm": plain(family), "eyes": seeing(family)}
    assert check_compatible(models).model_type == FAMILIES[family].llm
    structure = check_compatible(dict(reversed(models.items())))
    assert (structure.model_type, structure.layers) == (family, LAYERS)


@pytest.mark.parametrize("rows", [ROWS - 1, ROWS + 8])
def test_tables_may_be_of_another_length(rows: int, seeing: Make, plain: Make) -> None:
    check_compatible({"llm": plain(vocab_size=rows), "eyes": seeing()})


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"num_hidden_layers": 3}, "its number of layers is 2, not 3"),
        ({"hidden_size": 12, "head_dim": 4}, r"`lm_head.weight` is \[24, 8\], not \[24, 12\]"),
        ({"hidden_act": "gelu"}, "its `hidden_act` is silu, not gelu"),
        ({"words": {**WORDS, "w1": 2, "w2": 1}}, "0 tokens missing, 1 extra, 2 with another id"),
    ],
    ids=["layers", "width", "activation", "words"],
)
def test_another_llm_is_refused(changed: dict[str, Any], message: str, seeing: Make, plain: Make) -> None:
    with pytest.raises(CheckpointError, match=f"`eyes` cannot be merged with `llm`: .*{message}"):
        check_compatible({"llm": plain(**changed), "eyes": seeing()})


def test_another_architecture_is_refused(seeing: Make, plain: Make) -> None:
    with pytest.raises(CheckpointError, match="its architecture is llama, not qwen2"):
        check_compatible({"llm": plain("internvl"), "eyes": seeing("llava")})


def test_another_kind_that_sees_is_refused(seeing: Make) -> None:
    with pytest.raises(CheckpointError, match=r"`two` .* is a idefics3, not a llava; of models that see"):
        check_compatible({"one": seeing("llava"), "two": seeing("idefics3")})


def test_two_of_a_kind_are_told_that_one_lends_its_eyes(
    seeing: Make, caplog: pytest.LogCaptureFixture
) -> None:
    one = seeing()
    with caplog.at_level(logging.WARNING):
        check_compatible({"one": one, "two": one})
    assert "`one` and `two` both see" in caplog.text


@pytest.mark.parametrize(
    ("family", "changed", "warning"),
    [
        ("llava", {}, None),
        ("qwen2_vl", {}, "`mrope_section` of `eyes` is [1, 1, 0], of `llm` None"),
        (
            "llava",
            {"rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
            "`rope_theta` of `eyes` is 10000.0, of `llm` 500000.0",
        ),
        (
            "llava",
            {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}},
            "`factor` of `eyes` is None, of `llm` 2.0",
        ),
    ],
    ids=["same", "mrope", "theta", "scaling"],
)
def test_other_positions_are_warned_of(
    family: str,
    changed: dict[str, Any],
    warning: str | None,
    seeing: Make,
    plain: Make,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with caplog.at_level(logging.WARNING):
        check_compatible({"llm": plain(family, **changed), "eyes": seeing(family)})
    assert (warning in caplog.text) if warning else (caplog.text == "")
