"""How fast a candidate's weights are made in memory, against what moving their bytes takes.

A base and two random Llamas near it are merged by each method again and again, with other parameters each
time, into the model that is there, as a search does. The bound is the time to read the three sources and
write the result at the rate at which one tensor is copied to another on the same device in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
import transformers

from benchmarks.memory import MODELS, Shape, write_models
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.models import open_models
from evomerge.checkpoints.tensors import open_library
from evomerge.evaluate.evaluator import device_named, room_for_sources
from evomerge.merge.memory import ResidentModel
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Merge, ModelRef, Recipe

SHAPES = {
    "300M": Shape(hidden=1024, inner=2816, layers=18, vocabulary=32000),
    "1B": Shape(hidden=2048, inner=5632, layers=18, vocabulary=32000),
    "3B": Shape(hidden=3072, inner=8192, layers=24, vocabulary=32000),
    "7B": Shape(hidden=4096, inner=11008, layers=32, vocabulary=32000),
}
METHODS: dict[str, Callable[[float], dict[str, Any]]] = {
    "linear": lambda share: {"weight": [0.2, share, 0.8 - share]},
    "task_arithmetic": lambda share: {"weight": share},
    "ties": lambda share: {"density": share, "weight": 0.5},
    "dare_ties": lambda share: {"density": share, "weight": 0.5},
    "breadcrumbs": lambda share: {"density": share, "weight": 0.5},
}
_COPIED = 1 << 28  # bytes


def recipe_of(folder: Path, method: str, share: float) -> Recipe:
    """Return a merge of the three models by `method`, with a parameter set to `share`."""
    weights_only = method == "linear"
    return Recipe(
        models={name: ModelRef(source=str(folder / name)) for name in MODELS},
        merges={
            "merged": Merge(
                method=method,
                base=None if weights_only else "base",
                sources=MODELS if weights_only else MODELS[1:],
                params=METHODS[method](share),
            )
        },
    )


def bandwidth(device: torch.device) -> float:
    """Return bytes read and written per second by a copy on the device; the best of ten."""
    one = torch.ones(_COPIED // 4, device=device)
    other = torch.empty_like(one)
    return 2 * _COPIED / min(_seconds(lambda: other.copy_(one), device) for _ in range(10))


def _seconds(act: Callable[[], object], device: torch.device) -> float:
    started = time.perf_counter()
    act()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started


def main() -> None:
    """Write the models, merge them by each method and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", choices=SHAPES, default="300M")
    parser.add_argument("--folder", type=Path, help="models that `write_models` wrote, instead of a size")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--threads", type=int)
    asked = parser.parse_args()
    if asked.threads:
        torch.set_num_threads(asked.threads)
    device = device_named(asked.device)
    transformers.utils.logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with tempfile.TemporaryDirectory() as temporary:
        folder = asked.folder or Path(temporary)
        if not asked.folder:
            write_models(folder, SHAPES[asked.size], device.type)
        size = (folder / "base" / "model.safetensors").stat().st_size
        rate = bandwidth(device)
        bound = (len(MODELS) + 1) * size / rate
        print(
            f"{device}, {torch.get_num_threads()} threads; a source {size / 1e9:.2f} GB; copies move "
            f"{rate / 1e9:.1f} GB/s, which bounds a merge to {bound:.3f} s\n"
        )
        print("| method | first, s | next, s | of the bound | of task arithmetic |\n|---|---|---|---|---|")
        plain = float("nan")
        for method in sorted(asked.methods, key=lambda name: name != "task_arithmetic"):
            first, *later = _times(folder, method, asked.repeats, device)
            next_one = statistics.median(later)
            plain = next_one if method == "task_arithmetic" else plain
            print(
                f"| {method} | {first:.2f} | {next_one:.3f} | {bound / next_one:.0%} "
                f"| {next_one / plain:.1f}× |",
                flush=True,
            )
        if device.type == "cuda":
            print(f"\npeak on the device {torch.cuda.max_memory_allocated(device) / 1e9:.2f} GB")


def _times(folder: Path, method: str, repeats: int, device: torch.device) -> list[float]:
    """Return the seconds of each merge in turn, the first with everything that is done once."""
    recipes = [recipe_of(folder, method, 0.2 + 0.05 * i) for i in range(repeats + 1)]
    models = open_models({name: folder / name for name in MODELS})
    library = open_library(models, models)
    library.keep_on(device, room_for_sources(device, models.values()))
    resident = ResidentModel(library, device=device)
    try:
        return [_seconds(partial(_load, resident, one, models), device) for one in recipes]
    finally:
        library.close()
        torch.cuda.empty_cache()  # does nothing where there is none


def _load(resident: ResidentModel, recipe: Recipe, models: Mapping[str, Checkpoint]) -> None:
    resident.load(compile_plan(recipe, models))


if __name__ == "__main__":
    main()
