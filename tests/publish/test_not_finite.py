"""A source that holds NaN is refused before an export or a search begins, and nothing is written."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from evomerge import export, search
from evomerge.errors import CheckpointError
from evomerge.recipe import Merge, ModelRef, Recipe
from tests.controller.conftest import SPACE


@pytest.fixture
def broken(models: Path) -> str:
    """Return the tensor of the model `math` that holds a NaN."""
    file = models / "math" / "model.safetensors"
    tensors = load_file(file)
    name = next(iter(tensors))
    tensors[name].view(-1)[-1] = torch.nan
    save_file(tensors, file, metadata={"format": "pt"})
    return name


def test_an_export_is_refused(models: Path, broken: str) -> None:
    refs = {name: ModelRef(source=str(models / name)) for name in ("math", "lang")}
    recipe = Recipe(models=refs, merges={"m": Merge(method="linear", sources=("math", "lang"))})
    with pytest.raises(CheckpointError, match=f"^`math` cannot be merged: `{broken}` of .* holds NaN"):
        export(recipe, models.parent / "out")
    assert not list(models.parent.glob("*out*"))


def test_a_search_is_refused(models: Path, broken: str) -> None:
    text = SPACE.replace("zoo:base", str(models / "lang")).replace("zoo:math", str(models / "math"))
    space = models.parent / "space.yaml"
    space.write_text(text.replace(", lang: zoo:lang", ""))
    with pytest.raises(
        CheckpointError, match=f"`sources`: `math` cannot be merged: `{broken}` of .* holds NaN"
    ):
        search(space, run=models.parent / "run", serial=True, budget=3)
    assert not (models.parent / "run").exists()
