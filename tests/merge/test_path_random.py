"""Scored is exported: a hundred random paths, in memory and as checkpoints that transformers loads."""

import json
import random
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.tensors import open_library
from evomerge.merge.memory import ResidentModel
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Ends, Merge, ModelRef, Recipe, Slot
from tests.merge.exporting import export, logits
from tests.merge.families import save_random_model

NAMES = ("a", "b", "c")
MERGES = {
    "linear": Merge(method="linear", sources=("a", "b"), params={"weight": {"a": 0.3, "b": 0.7}}),
    "ties": Merge(method="ties", base="c", sources=("a", "b"), params={"density": 0.5, "scope": "model"}),
    "dare": Merge(method="dare_linear", base="c", sources=("a", "b"), params={"density": 0.5}),
}
FAMILIES = (
    "llama", "llama_tied", "qwen2", "qwen3", "qwen3_moe", "granite", "gemma2", "gemma3", "gpt2", "pythia",
)  # fmt: skip
EACH = 10
DEPTH = 3
ALIKE = {0: (0, 2), 1: (1,), 2: (0, 2)}
"""Layers of one kind, in those of the families that have several."""


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, dict[str, Checkpoint]]:
    """Return the name of a family, and three random models of it."""
    for seed, name in enumerate(NAMES):
        save_random_model(request.param, "float32", seed, tmp_path / name)
    return request.param, {name: open_checkpoint(tmp_path / name) for name in NAMES}


def test_random_paths_are_exported_as_scored(
    family: tuple[str, dict[str, Checkpoint]], tmp_path: Path
) -> None:
    name, checkpoints = family
    library = open_library(checkpoints, checkpoints)
    resident = ResidentModel(library, device=torch.device("cpu"))
    plans = [compile_plan(random_recipe(name, i), checkpoints) for i in range(EACH)]
    scored: list[Tensor] = []
    for i, plan in enumerate(plans):
        scored.append(logits(resident.load(plan)))
        stored = AutoModelForCausalLM.from_pretrained(export(plan, library, tmp_path / f"out{i}"))
        assert torch.equal(scored[-1], logits(stored))
        assert bool(scored[-1].isfinite().all())
    assert not any(torch.equal(one, other) for one, other in pairwise(scored))
    for i in sorted(range(EACH), key=lambda i: json.dumps(plans[i].config)):  # many of them in place
        assert torch.equal(logits(resident.load(plans[i])), scored[i])
    library.close()


def test_the_recipes_are_of_many_kinds() -> None:
    """Otherwise the test above says little."""
    recipes = [random_recipe(name, i) for name in FAMILIES for i in range(EACH)]
    assert len(recipes) == 100
    seen: Counter[str] = Counter()
    for recipe in recipes:
        path = recipe.path or ()
        layers = [(slot.model, slot.layer) for slot in path]
        seen["repeats"] += len(set(layers)) < len(layers)
        seen["skips"] += any(layer not in {slot.layer for slot in path} for layer in range(DEPTH))
        seen["scales"] += any(slot.scale != 1 for slot in path)
        seen["norms"] += any(slot.norms not in (None, slot.layer) for slot in path)
        seen["factors"] += any(slot.weights for slot in path)
        seen["merges"] += bool(recipe.merges)
        seen["several models"] += len({slot.model for slot in path}) > 1
        seen["one model, tied where it is"] += recipe.embed_from == recipe.head_from and not recipe.untie
        seen["other ends"] += recipe.embed_from != recipe.head_from
        seen["half precision"] += recipe.dtype == "bfloat16"
    assert min(seen.values()) >= 10, seen


def random_recipe(family: str, number: int) -> Recipe:
    """Return the path recipe of this number for a family, the same every time."""
    draw = random.Random(f"{family} {number}")
    path = tuple(random_slot(draw) for _ in range(draw.randint(1, 5)))
    used = {slot.model for slot in path}
    embed, head = draw.choice(NAMES), draw.choice(NAMES)
    return Recipe(
        models={name: ModelRef(source=name) for name in NAMES},
        merges={name: merge for name, merge in MERGES.items() if name in used},
        path=path,
        ends=Ends(embed=embed, head=embed if draw.random() < 0.5 else head),
        untie=draw.random() < 0.2,
        dtype="bfloat16" if draw.random() < 0.2 else None,
        seed=number,
    )


def random_slot(draw: random.Random) -> Slot:
    layer = draw.randrange(DEPTH)
    return Slot(
        model=draw.choice((*NAMES, *NAMES, *MERGES)),
        layer=layer,
        scale=draw.uniform(0.5, 1.5) if draw.random() < 0.6 else 1.0,
        norms=draw.choice(ALIKE[layer]) if draw.random() < 0.2 else None,
        weights=(("mlp", draw.uniform(0.5, 1.5)),) if draw.random() < 0.2 else (),
    )
