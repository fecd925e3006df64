"""The language tower is found in real models of nine families, on disk and live."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file

from evomerge.checkpoints.architecture import read_architecture
from evomerge.checkpoints.compatible import language_part
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.language import find_tower, language_names
from evomerge.errors import CheckpointError
from tests.seeing import FAMILIES, LAYERS, plain_model, saved, seeing_model

every_family = pytest.mark.parametrize("family", FAMILIES)


@pytest.fixture(scope="module", autouse=True)
def quiet_transformers() -> None:
    transformers.logging.set_verbosity_error()  # type: ignore[no-untyped-call]
    transformers.logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(input_ids=torch.arange(3, 15)[None]).logits
    return found


@every_family
@pytest.mark.parametrize("side", ["disk", "live"])
def test_the_language_tower_is_the_plain_llm(family: str, side: str, tmp_path: Path) -> None:
    """Under the names given, its tensors load into the plain LLM, which then says the same of a text."""
    seeing, plain = seeing_model(family), plain_model(family, seed=1)
    stored = load_file(saved(seeing, tmp_path) / "model.safetensors")
    tensors = stored if side == "disk" else seeing.state_dict()
    names = language_names(tensors, {"model_type": family})
    inside = {name: tensors[own] for own, name in names.items() if name is not None}
    missing, unexpected = plain.load_state_dict(inside, strict=False)
    assert unexpected == []
    tied = plain.config.tie_word_embeddings and side == "disk"
    assert missing == (["lm_head.weight"] if tied else [])
    assert not torch.equal(logits(plain_model(family, seed=1)), logits(seeing))
    torch.testing.assert_close(logits(plain), logits(seeing))


@every_family
def test_what_is_left_over_is_what_sees(family: str, tmp_path: Path) -> None:
    seeing = seeing_model(family)
    checkpoint = open_checkpoint(saved(seeing, tmp_path))
    for names in (list(checkpoint.specs), list(seeing.state_dict())):
        left = [name for name, plain in language_names(names, checkpoint.config).items() if plain is None]
        assert left
        words = ("vision", "visual", "multi_modal_projector", "connector", "image_newline")
        assert [name for name in left if not any(word in name for word in words)] == []


@every_family
def test_the_structure_is_that_of_the_language_tower(family: str, tmp_path: Path) -> None:
    """The vision tower has more layers, and must not be taken for the model."""
    checkpoint = open_checkpoint(saved(seeing_model(family), tmp_path))
    structure = read_architecture(checkpoint.specs, checkpoint.config)
    plain = read_architecture(plain_model(family).state_dict(), {"model_type": FAMILIES[family].llm})
    assert (structure.model_type, structure.layers) == (family, LAYERS)
    assert structure.plain(structure.embedding) == plain.embedding
    assert structure.tied is checkpoint.config["tie_word_embeddings"]
    for name in checkpoint.specs:
        twin = structure.plain(name)
        assert structure.place(name) == (plain.place(twin) if twin else (None, "rest"))
        assert twin is None or structure.own(twin) == name


def test_a_tied_model_would_have_its_head_beside_its_tower(tmp_path: Path) -> None:
    gemma, idefics = (
        open_checkpoint(saved(seeing_model(name, tie_word_embeddings=True), tmp_path / name))
        for name in ("gemma3", "idefics3")
    )
    towers = [find_tower(model.specs, model.config) for model in (gemma, idefics)]
    heads = [tower.own("lm_head.weight") for tower in towers if tower]
    assert heads == ["language_model.lm_head.weight", "lm_head.weight"]


def test_the_language_part_is_a_plain_checkpoint(tmp_path: Path) -> None:
    whole = open_checkpoint(saved(seeing_model("llava"), tmp_path))
    part = language_part(whole)
    assert set(part.specs) == set(plain_model("llava").state_dict())
    assert part.files.keys() == part.specs.keys()
    assert part.config["model_type"] == "llama"
    assert language_part(part) is part


def test_a_plain_llm_keeps_its_names() -> None:
    names = ["transformer.wte.weight", "transformer.h.0.attn.c_attn.weight", "transformer.ln_f.weight"]
    assert language_names(names, {"model_type": "gpt2"}) == {name: name for name in names}


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("language_model.model.decoder", "model.decoder"),
        ("language_model.transformer", "transformer"),
        ("model.text_model", "model"),
    ],
)
def test_a_tower_need_not_be_a_llama(before: str, after: str) -> None:
    names = {f"{before}.{each}": f"{after}.{each}" for each in ("embed_tokens.weight", "layers.0.fc1.weight")}
    seeing: dict[str, str | None] = {"vision_model.embeddings.patch_embedding.weight": None}
    assert language_names([*names, *seeing], {"model_type": "some"}) == names | seeing


def test_layers_that_attend_to_the_image_are_refused() -> None:
    inside = ("0.self_attn.q_proj", "1.cross_attn.q_proj", "2.self_attn.q_proj")
    names = [
        "language_model.model.embed_tokens.weight",
        *(f"language_model.model.layers.{each}.weight" for each in inside),
        "vision_model.patch_embedding.weight",
    ]
    with pytest.raises(CheckpointError, match="a `mllama` has layers that attend to the image"):
        read_architecture(names, {"model_type": "mllama"})


@pytest.mark.parametrize(
    ("tables", "found"), [((), "found none"), (("a", "b"), "found `a` and `b`")], ids=["none", "two"]
)
def test_a_model_without_one_language_tower_is_refused(tables: tuple[str, ...], found: str) -> None:
    names = [f"{root}.{each}.weight" for root in tables for each in ("embed_tokens", "layers.0.mlp.up")]
    with pytest.raises(CheckpointError, match=f"`odd` should have one language model .* {found}"):
        read_architecture(["vision_tower.layers.0.fc.weight", *names], {"model_type": "odd"})
