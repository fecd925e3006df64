"""Every merge method makes a checkpoint of the zoo that plain transformers loads and that says something."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers

from evomerge import export, measure, plugins
from evomerge.merge.method import statistic_of
from evomerge.parameters import declared
from evomerge.recipe import Merge, ModelRef, Recipe
from evomerge.types import Statistic

ZOO = ("math", "lang", "logic")


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Statistic, str], Path]:
    """Return a function that gives the file of a model's statistic, measured once on a few prompts."""
    folder = tmp_path_factory.mktemp("measured")

    def found(statistic: Statistic, name: str) -> Path:
        file = folder / f"{name}.{statistic}.safetensors"
        if not file.exists():
            measure(statistic, f"zoo:{name}", ["one plus two is three", "five minus one is four"], file)
        return file

    return found


def recipe_of(method: str, measured: Callable[[Statistic, str], Path]) -> Recipe:
    """Return a recipe with the method's defaults over as many models of the zoo as it takes, up to three."""
    kind = plugins.load("methods", method)
    sources = ZOO[: min(kind.sources[1] or len(ZOO), len(ZOO))]
    base = None if kind.base == "unused" else "base"
    params = {"density": 0.5} if "density" in declared(kind) else {}
    names = [*([base] if base else []), *sources]
    refs = {name: ModelRef(source=f"zoo:{name}") for name in names}
    if (statistic := statistic_of(kind)) is not None:
        files = {name: str(measured(statistic, name)) for name in sources}
        refs |= {name: replace(refs[name], **{statistic: file}) for name, file in files.items()}
    return Recipe(
        models=refs,
        merges={"merged": Merge(method=method, base=base, sources=sources, params=params)},
        seed=1,
    )


@pytest.mark.parametrize("method", plugins.names("methods"))
def test_a_merge_of_the_zoo_loads_in_transformers(
    method: str, measured: Callable[[Statistic, str], Path], tmp_path: Path
) -> None:
    folder = export(recipe_of(method, measured), tmp_path / "merged")
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    words = transformers.AutoTokenizer.from_pretrained(folder, local_files_only=True)
    with torch.inference_mode():
        logits = model(**words("one plus two is", return_tensors="pt")).logits
    assert logits.isfinite().all()
    assert logits.std() > 0.1
