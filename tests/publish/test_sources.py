"""The sources of an export: they fit together, and are what the recipe says."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import transformers

from evomerge.archive.run import Run
from evomerge.checkpoints.digest import digest, digests
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.errors import RequestError
from evomerge.merge import sources
from evomerge.merge.sources import open_sources, pinned
from evomerge.publish.public import export
from evomerge.recipe import Merge, ModelRef, Recipe, Slot, from_yaml
from tests.cli.conftest import save_llama


def linear(*names: str, **models: ModelRef) -> Recipe:
    merge = Merge(method="linear", sources=names, params={"weight": 0.5})
    return Recipe(models=models, merges={"merged": merge})


def at(folder: Path, *names: str) -> Recipe:
    return linear(*names, **{name: ModelRef(source=str(folder / name)) for name in names})


@pytest.mark.parametrize("other", ["permuted", "wider"])
def test_models_that_do_not_fit_are_refused(models: Path, other: str) -> None:
    before = sorted(models.parent.iterdir())
    with pytest.raises(RequestError, match=f"`{other}` cannot be merged with `math`"):
        export(at(models, "math", other), models.parent / "out")
    assert sorted(models.parent.iterdir()) == before


def test_models_the_merge_does_not_use_need_not_be_there(models: Path) -> None:
    unused = ModelRef(source=str(models / "none"))
    recipe = linear("math", "lang", unused=unused, **at(models, "math", "lang").models)
    found = open_sources(recipe, {})
    assert list(found) == ["math", "lang"]
    assert list(pinned(recipe, found, {}).models) == ["math", "lang"]


def test_other_content_is_refused_and_read_once(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[str] = []

    def counted(checkpoints: Mapping[str, Checkpoint]) -> dict[str, str]:
        read.extend(checkpoint.path.name for checkpoint in checkpoints.values())
        return digests(checkpoints)

    monkeypatch.setattr(sources, "digests", counted)
    wrong = ModelRef(source=str(models / "lang"), digest=digest(open_checkpoint(models / "math")))
    with pytest.raises(RequestError, match=r"^the model in .*/lang is not the `math` of the recipe: its"):
        export(linear("math", math=wrong), models.parent / "out")
    assert read == ["lang"]
    assert not (models.parent / "out").exists()


def test_a_folder_that_reads_like_a_hub_id_is_told_as_the_folder_it_is(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models.parent)
    recipe = linear(
        "math", "lang", math=ModelRef(source="models/math"), lang=ModelRef(source="./models/lang")
    )
    found = open_sources(recipe, {})
    told = pinned(recipe, found, {}).models
    assert {name: ref.source for name, ref in told.items()} == {
        "math": str(models / "math"),
        "lang": str(models / "lang"),
    }
    assert told["math"].digest == digest(found["math"])


def test_a_model_of_the_hub_keeps_its_id(models: Path) -> None:
    snapshot = models.parent / "models--owner--name" / "snapshots" / "0123"
    snapshot.parent.mkdir(parents=True)
    (models / "math").rename(snapshot)
    recipe, found = linear("math", math=ModelRef(source="owner/name")), open_checkpoint(snapshot)
    assert pinned(recipe, {"math": found}, {}).models["math"].source == "owner/name"


def test_a_chosen_folder_is_the_model_of_the_hub_only_where_the_digest_says_so(models: Path) -> None:
    folder = {"math": models / "math"}
    found = {"math": open_checkpoint(models / "math")}
    loose = linear("math", math=ModelRef(source="owner/name"))
    assert pinned(loose, found, folder).models["math"].source == str(models / "math")
    held = linear("math", math=ModelRef(source="owner/name", digest=digest(found["math"])))
    assert pinned(held, found, folder).models["math"].source == "owner/name"


def test_a_run_finds_its_sources_where_they_are_said_to_lie(run: Run, exported: Path, tmp_path: Path) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(run.record.paths["math"], moved)
    gone = Run(run.folder, replace(run.record, paths={**run.record.paths, "math": "/gone"}))
    with pytest.raises(RequestError, match=r"no model `math` at /gone; .* `--source math=FOLDER`"):
        export(gone, tmp_path / "out")
    target = export(gone, tmp_path / "out", paths={"math": moved})
    for name in ("model.safetensors", "recipe.yaml"):
        assert (target / name).read_bytes() == (exported / name).read_bytes()


def test_a_run_takes_no_other_model_for_its_source(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="is not the `math` of the recipe"):
        export(run, tmp_path / "mixed", paths={"math": run.record.paths["lang"]})
    with pytest.raises(RequestError, match="`--source maths=…`: no model named `maths`"):
        export(run, tmp_path / "mixed", paths={"maths": run.record.paths["math"]})
    assert list(tmp_path.iterdir()) == []


def test_a_name_the_recipe_does_not_have_is_refused(models: Path) -> None:
    with pytest.raises(RequestError, match="no model named `maths`"):
        export(at(models, "math", "lang"), models.parent / "out", paths={"maths": models / "math"})


def stack(folder: Path, *slots: Slot, merges: Mapping[str, Merge] | None = None) -> Recipe:
    names = ("math", "lang", "permuted", "wider", "deep")
    models = {name: ModelRef(source=str(folder / name)) for name in names}
    return Recipe(models=models, merges=merges or {}, path=slots)


def test_a_path_is_exported_as_a_stock_checkpoint(models: Path) -> None:
    merge = Merge(method="linear", sources=("lang", "math"))
    slots = (Slot(model="m", layer=0), Slot(model="math", layer=0, scale=0.9), Slot(model="m", layer=0))
    target = export(stack(models, *slots, merges={"m": merge}), models.parent / "out")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(target)
    assert len(model.model.layers) == model.config.num_hidden_layers == 3
    card = (target / "README.md").read_text()
    assert "by stacking 3 layers (m 0, math 0, m 0) after merging by `linear` from:" in card
    assert "**math** (source)" in card
    written = from_yaml((target / "recipe.yaml").read_text())
    assert written.path == slots
    assert list(written.models) == ["lang", "math"], "what the path does not use is not in its recipe"


@pytest.mark.parametrize("other", ["permuted", "wider"])
def test_layers_of_models_with_other_words_are_refused(models: Path, other: str) -> None:
    with pytest.raises(
        RequestError, match=f"`{other}` cannot be merged with `math`: the vocabularies differ"
    ):
        open_sources(stack(models, Slot(model="math", layer=0), Slot(model=other, layer=0)), {})


def test_a_path_has_the_words_of_the_merge_that_gives_its_ends(models: Path) -> None:
    merges = {
        "m": Merge(method="linear", sources=("math", "wider")),
        "n": Merge(method="linear", sources=("lang",)),
    }
    slots = [Slot(model=name, layer=1, scale=0.9) for name in ("m", "wider", "n", "m")]
    recipe = replace(stack(models, *slots, merges=merges), tokenizer="union")
    target = export(recipe, models.parent / "out")
    model: Any = transformers.AutoModelForCausalLM.from_pretrained(target)
    words = transformers.AutoTokenizer.from_pretrained(target)
    wider = transformers.AutoTokenizer.from_pretrained(models / "wider")
    assert set(words.get_vocab()) == set(wider.get_vocab())
    assert model.lm_head.weight.shape[0] == model.config.vocab_size >= len(words)


def test_layers_of_models_of_other_depths_may_be_stacked_but_not_merged(models: Path) -> None:
    save_llama(models / "deep", seed=5, layers=4)
    recipe = stack(models, Slot(model="math", layer=0), Slot(model="deep", layer=3))
    assert list(open_sources(recipe, {})) == ["math", "deep"]
    merge = Merge(method="linear", sources=("math", "deep"))
    recipe = stack(models, Slot(model="m", layer=0), Slot(model="deep", layer=3), merges={"m": merge})
    with pytest.raises(RequestError, match="its number of layers is 4, not 2"):
        open_sources(recipe, {})
