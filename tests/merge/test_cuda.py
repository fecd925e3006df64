"""On a GPU: a live model has the bits of its export, loops those of blocks, and all nearly those of a CPU."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evomerge import plugins
from evomerge.checkpoints.locate import locate
from evomerge.checkpoints.models import open_models
from evomerge.checkpoints.tensors import open_library
from evomerge.merge import memory
from evomerge.merge.compiling import Loops, can_compile
from evomerge.merge.execute import Execution
from evomerge.merge.memory import ResidentModel
from evomerge.merge.method import statistic_of
from evomerge.merge.planning import compile_plan
from evomerge.merge.streaming import Known, Operands, Orders, Stored
from evomerge.parameters import declared
from evomerge.recipe import Merge, ModelRef, Recipe
from tests.merge.test_loops import LOOPED, prepared, streamed
from tests.merge.test_streaming import DTYPES

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
ZOO = ("math", "lang", "logic")
METHODS = [name for name in plugins.names("methods") if statistic_of(plugins.load("methods", name)) is None]


def on_gpu(known: Known) -> Known:
    operands = known.operands
    base = None if operands.base is None else operands.base.to(GPU)
    stored = tuple(Stored(tensor=each.tensor.to(GPU)) for each in operands.stored)
    return replace(known, operands=Operands(base=base, stored=stored), orders=Orders())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "params"), LOOPED)
def test_blocks_on_a_gpu_are_those_of_a_cpu(name: str, params: dict[str, Any], dtype: torch.dtype) -> None:
    method, site, known = prepared(name, params, dtype)
    assert torch.equal(streamed(method, site, on_gpu(known)).cpu(), streamed(method, site, known))


@pytest.mark.skipif(
    torch.cuda.is_available() and not can_compile(GPU),
    reason="there is no Triton, or one that rounds otherwise",
)
@pytest.mark.filterwarnings("ignore")  # of torch's compiler
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "params"), LOOPED)
def test_loops_on_a_gpu_are_its_blocks(
    name: str,
    params: dict[str, Any],
    dtype: torch.dtype,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    method, site, known = prepared(name, params, dtype)
    there, loops = on_gpu(known), Loops()
    stored = [each.tensor for each in there.operands.stored]
    into = torch.empty_like(stored[0])
    assert loops.run(method.loop(site, replace(there, loops=loops)), there.operands.base, stored, into)
    assert torch.equal(into, streamed(method, site, there))


def recipe_of(method: str, density: float = 0.5) -> Recipe:
    kind = plugins.load("methods", method)
    sources = ZOO[: min(kind.sources[1] or len(ZOO), len(ZOO))]
    base = None if kind.base == "unused" else "base"
    names = [*([base] if base else []), *sources]
    params = {"density": density} if "density" in declared(kind) else {}
    return Recipe(
        models={name: ModelRef(source=f"zoo:{name}") for name in names},
        merges={"merged": Merge(method=method, base=base, sources=sources, params=params)},
    )


def made(recipe: Recipe, device: torch.device) -> dict[str, Tensor]:
    models = open_models({name: locate(ref.source) for name, ref in recipe.models.items()})
    library = open_library(models, models)
    execution = Execution(compile_plan(recipe, models), library, device=device)
    found = {output.name: execution.produce(output).cpu() for output in execution.plan.outputs}
    library.close()
    return found


@pytest.mark.parametrize("method", METHODS)
def test_a_merge_on_a_gpu_is_nearly_that_of_a_cpu(method: str) -> None:
    here, there = (made(recipe_of(method), device) for device in (CPU, GPU))
    for name, value in here.items():
        off = (value.float() - there[name].float()).norm() / value.float().norm().clamp(min=1e-6)
        assert off < 1e-3, (name, float(off))


@pytest.mark.parametrize("room", [0, 500_000, 1 << 30])
@pytest.mark.parametrize("loops", [False, True])
def test_a_live_model_is_what_its_export_makes(
    room: int, loops: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether sources stay on the device, some of them or none, and whether or not there are loops."""
    if loops:
        monkeypatch.setattr(memory, "LEAST_PARAMETERS", 0)
        monkeypatch.setattr("evomerge.merge.compiling._LEAST_ENTRIES", 1 << 10)
    for method in ("task_arithmetic", "ties", "breadcrumbs", "dare_ties", "linear"):
        recipe = recipe_of(method)
        models = open_models({name: locate(ref.source) for name, ref in recipe.models.items()})
        library = open_library(models, models)
        library.keep_on(GPU, room)
        resident = ResidentModel(library, device=GPU)
        for density in (0.3, 0.5):
            live = resident.load(compile_plan(recipe_of(method, density), models)).state_dict()
        for name, value in made(recipe, GPU).items():
            assert torch.equal(live[name].cpu(), value), (method, name)
        library.close()
