"""Every merge method makes a checkpoint of the zoo that plain transformers loads and that says something."""

from pathlib import Path

import pytest
import torch
import transformers

from evomerge import export, plugins
from evomerge.parameters import declared
from evomerge.recipe import Merge, ModelRef, Recipe

ZOO = ("math", "lang", "logic")


def recipe_of(method: str) -> Recipe:
    """Return a recipe with the method's defaults over as many models of the zoo as it takes, up to three."""
    kind = plugins.load("methods", method)
    sources = ZOO[: min(kind.sources[1] or len(ZOO), len(ZOO))]
    base = None if kind.base == "unused" else "base"
    params = {"density": 0.5} if "density" in declared(kind) else {}
    names = [*([base] if base else []), *sources]
    return Recipe(
        models={name: ModelRef(source=f"zoo:{name}") for name in names},
        merges={"merged": Merge(method=method, base=base, sources=sources, params=params)},
        seed=1,
    )


@pytest.mark.parametrize("method", plugins.names("methods"))
def test_a_merge_of_the_zoo_loads_in_transformers(method: str, tmp_path: Path) -> None:
    folder = export(recipe_of(method), tmp_path / "merged")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    words = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with torch.inference_mode():
        logits = model(**words("one plus two is", return_tensors="pt")).logits
    assert logits.isfinite().all()
    assert logits.std() > 0.1
