"""Scored is exported: the model in memory and the folder on disk are the same, to the bit."""

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM

from evomerge.checkpoints.architecture import read_architecture
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.tensors import Library, open_library
from evomerge.errors import EvaluationError, MergeError
from evomerge.merge.execute import Execution
from evomerge.merge.memory import ResidentModel
from evomerge.merge.plan import Plan
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Group, Merge, ModelRef, Recipe, layer_swap
from tests.merge import exporting
from tests.merge.exporting import logits

LAYERS = 2
SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": LAYERS, "num_attention_heads": 2,
    "intermediate_size": 24, "max_position_embeddings": 32,
}  # fmt: skip
GROUPED = {**SIZES, "num_key_value_heads": 1}
HEADS_OF_8 = {**GROUPED, "head_dim": 8}
SHARD_BYTES = 4_000
export = partial(exporting.export, shard_bytes=SHARD_BYTES)  # several files, unless a test says otherwise
GEMMA4 = {
    **HEADS_OF_8,
    "global_head_dim": 8,
    "vocab_size_per_layer_input": 32,
    "hidden_size_per_layer_input": 4,
}


@dataclass(frozen=True)
class Family:
    model_type: str
    config: Mapping[str, Any]
    in_place: bool = True
    """Whether its parameters are named as in its checkpoints, so that later plans only write."""


FAMILIES = {
    "llama": Family("llama", GROUPED),
    "mistral": Family("mistral", GROUPED),
    "qwen2": Family("qwen2", GROUPED),
    "qwen2_tied": Family("qwen2", GROUPED | {"tie_word_embeddings": True}),
    "qwen3": Family("qwen3", HEADS_OF_8),
    "gemma2": Family("gemma2", HEADS_OF_8),
    "gemma3_text": Family("gemma3_text", HEADS_OF_8),
    "gemma4_text": Family("gemma4_text", GEMMA4),
    "gpt2": Family(
        "gpt2", {"vocab_size": 32, "n_embd": 16, "n_layer": LAYERS, "n_head": 2, "n_positions": 32}
    ),
    "gpt_neox": Family("gpt_neox", SIZES, in_place=False),
    "phi": Family("phi", SIZES),
    "phi3": Family("phi3", {**GROUPED, "pad_token_id": 0}),
    "qwen3_moe": Family(
        "qwen3_moe",
        {**HEADS_OF_8, "num_experts": 3, "moe_intermediate_size": 8, "num_experts_per_tok": 2},
        in_place=False,
    ),
    "granite": Family("granite", GROUPED),
    "olmo2": Family("olmo2", GROUPED),
}
NAMES = ("base", "math", "code")
GROUPS = (Group(modules=("attn", "embed"), layers=(0, 0), params={"weight": {"math": -0.5, "code": 1.25}}),)
RECIPES = {
    "ties": Merge(
        method="ties",
        base="base",
        sources=NAMES[1:],
        params={"density": 0.4, "scope": "model"},
        groups=GROUPS,
    ),
    "dare": Merge(
        method="dare_linear", base="base", sources=NAMES[1:], params={"density": 0.5, "weight": 0.6}
    ),
    "linear": Merge(method="linear", base="base", sources=NAMES[1:], groups=GROUPS, params={"weight": 0.3}),
    "nested": layer_swap("inner", "code", layers=LAYERS, bottom=0, top=1, ends_from="average"),
}
INNER = {"inner": RECIPES["ties"]}


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, Checkpoint]]:
    """Return a function that gives three random models of a family in a dtype, written once."""
    root = tmp_path_factory.mktemp("families")

    def make(name: str, dtype: str) -> dict[str, Checkpoint]:
        folder = root / f"{name}-{dtype}"
        if not folder.exists():
            for seed, model in enumerate(NAMES):
                save_random_model(FAMILIES[name], dtype, seed, folder / model)
        return {model: open_checkpoint(folder / model) for model in NAMES}

    return make


@pytest.fixture
def opened(
    sources: Callable[[str, str], dict[str, Checkpoint]], request: pytest.FixtureRequest
) -> Iterator[tuple[dict[str, Checkpoint], Library]]:
    """Yield the checkpoints of the (family, dtype) asked for, and their tensors."""
    checkpoints = sources(*request.param)
    library = open_library(checkpoints, checkpoints)
    yield checkpoints, library
    library.close()


CASES = [(name, "float32") for name in FAMILIES] + [
    (name, "bfloat16") for name in ("llama", "qwen2_tied", "gemma4_text", "qwen3_moe")
]
every_family = pytest.mark.parametrize("opened", CASES, ids="-".join, indirect=True)
llama_only = pytest.mark.parametrize("opened", [("llama", "float32")], ids="-".join, indirect=True)


@every_family
def test_scored_is_exported(opened: tuple[dict[str, Checkpoint], Library], tmp_path: Path) -> None:
    """The recipes in turn, so that later ones overwrite the earlier model in place."""
    checkpoints, library = opened
    before = digests(checkpoints)
    resident = ResidentModel(library, device=torch.device("cpu"))
    seen: list[Tensor] = []
    for name in RECIPES:
        plan = plan_for(name, checkpoints)
        live = resident.load(plan)
        stored: Any = AutoModelForCausalLM.from_pretrained(export(plan, library, tmp_path / name))
        assert not stored.training
        assert live.dtype == stored.dtype
        assert_same_state(live, stored)
        seen.append(logits(live))
        assert torch.equal(seen[-1], logits(stored))
        assert bool(seen[-1].isfinite().all())
    assert not torch.equal(seen[0], seen[1]), "two recipes that differ scored the same"
    assert digests(checkpoints) == before, "a source file was written to"


@every_family
def test_a_model_is_overwritten_in_place_where_names_allow_it(
    opened: tuple[dict[str, Checkpoint], Library], request: pytest.FixtureRequest
) -> None:
    checkpoints, library = opened
    name = request.node.callspec.id.rpartition("-")[0]
    resident = ResidentModel(library, device=torch.device("cpu"))
    first = resident.load(plan_for("ties", checkpoints))
    second = resident.load(plan_for("dare", checkpoints))
    assert (second is first) is FAMILIES[name].in_place


@every_family
def test_the_structure_of_a_real_checkpoint_is_read(
    opened: tuple[dict[str, Checkpoint], Library], request: pytest.FixtureRequest
) -> None:
    base = opened[0]["base"]
    name = request.node.callspec.id.rpartition("-")[0]
    structure = read_architecture(base.specs, base.config)
    assert structure.layers == LAYERS
    assert structure.model_type == FAMILIES[name].model_type
    assert structure.tied is base.config.get("tie_word_embeddings", False)


@llama_only
def test_tensors_on_disk_are_those_of_the_plan(
    opened: tuple[dict[str, Checkpoint], Library], tmp_path: Path
) -> None:
    checkpoints, library = opened
    plan = plan_for("dare", checkpoints)
    made = {output.name: Execution(plan, library).produce(output) for output in plan.outputs}
    whole = load_file(export(plan, library, tmp_path / "whole", shard_bytes=10**9) / "model.safetensors")
    assert whole.keys() == made.keys()
    assert all(torch.equal(whole[name], made[name]) for name in made)


@llama_only
def test_sharding_changes_no_byte_and_indexes_every_tensor(
    opened: tuple[dict[str, Checkpoint], Library], tmp_path: Path
) -> None:
    checkpoints, library = opened
    plan = plan_for("dare", checkpoints)
    whole = load_file(export(plan, library, tmp_path / "whole", shard_bytes=10**9) / "model.safetensors")
    folder = export(plan, library, tmp_path / "shards")
    index = json.loads((folder / "model.safetensors.index.json").read_text())
    assert len(set(index["weight_map"].values())) > 2
    assert index["metadata"]["total_size"] == plan.nbytes
    for shard in sorted(set(index["weight_map"].values())):
        tensors = load_file(folder / shard)
        assert set(tensors) == {name for name, file in index["weight_map"].items() if file == shard}
        assert all(torch.equal(tensors[name], whole[name]) for name in tensors)
        assert len(tensors) == 1 or sum(tensor.nbytes for tensor in tensors.values()) <= SHARD_BYTES
    assert index["weight_map"].keys() == whole.keys()


@llama_only
def test_writing_twice_gives_the_same_files(
    opened: tuple[dict[str, Checkpoint], Library], tmp_path: Path
) -> None:
    checkpoints, library = opened
    once, again = (export(plan_for("ties", checkpoints), library, tmp_path / name) for name in "ab")
    files = sorted(path.name for path in once.iterdir())
    assert [path.name for path in sorted(again.iterdir())] == files
    assert all((once / name).read_bytes() == (again / name).read_bytes() for name in files)


def test_overwriting_changes_no_source_that_was_copied(tmp_path: Path) -> None:
    """A tensor that one source lacks is copied from the template, of which the next recipe has another."""
    for seed, name in enumerate(NAMES):
        save_random_model(FAMILIES["qwen2"], "float32", seed, tmp_path / name)
    checkpoints = {name: open_checkpoint(tmp_path / name) for name in NAMES}
    copied = "model.norm.weight"
    checkpoints["code"] = without(checkpoints["code"], copied)
    library = open_library(checkpoints, checkpoints)
    before = {name: library.raw(name, copied).clone() for name in ("base", "math")}
    assert not torch.equal(before["base"], before["math"])
    resident = ResidentModel(library, device=torch.device("cpu"))
    for template in ("base", "math"):
        merge = Merge(method="task_arithmetic", base=template, sources=("code",))
        model = resident.load(compile_plan(recipe_of(merge), checkpoints))
        assert torch.equal(model.get_parameter(copied), before[template])
    assert all(torch.equal(library.raw(name, copied), value) for name, value in before.items())
    library.close()


@llama_only
def test_values_the_dtype_cannot_hold_are_refused(opened: tuple[dict[str, Checkpoint], Library]) -> None:
    checkpoints, library = opened
    merge = Merge(method="linear", sources=NAMES, params={"weight": 1e9, "normalize": False})
    plan = compile_plan(recipe_of(merge, dtype="float16"), checkpoints)
    with pytest.raises(MergeError, match=r"merging `.*` gave values that F16 cannot hold"):
        ResidentModel(library, device=torch.device("cpu")).load(plan)


@llama_only
def test_a_refused_plan_leaves_the_resident_model_usable(
    opened: tuple[dict[str, Checkpoint], Library],
) -> None:
    checkpoints, library = opened
    resident = ResidentModel(library, device=torch.device("cpu"))
    expected = logits(resident.load(plan_for("ties", checkpoints)))
    broken = Merge(
        method="linear", base="base", sources=NAMES[1:], params={"weight": {"math": 1, "code": -1}}
    )
    with pytest.raises(MergeError, match="sum to 0, so they are no shares"):
        resident.load(compile_plan(recipe_of(broken), checkpoints))
    assert torch.equal(logits(resident.load(plan_for("ties", checkpoints))), expected)


def test_a_merge_that_leaves_parameters_unset_is_refused(tmp_path: Path) -> None:
    save_random_model(FAMILIES["llama"], "float32", 0, tmp_path / "base")
    checkpoint = without(open_checkpoint(tmp_path / "base"), "model.norm.weight")
    library = open_library({"base": checkpoint}, ["base"])
    plan = compile_plan(recipe_of(Merge(method="linear", sources=("base",))), {"base": checkpoint})
    with pytest.raises(EvaluationError, match=r"leaves `model\.norm\.weight` of the model unset"):
        ResidentModel(library, device=torch.device("cpu")).load(plan)
    library.close()


def save_random_model(family: Family, dtype: str, seed: int, folder: Path) -> None:
    """Write a model whose every stored number is random, norms and buffers included."""
    config = transformers.AutoConfig.for_model(family.model_type, **family.config)
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model: Any = AutoModelForCausalLM.from_config(config, dtype=getattr(torch, dtype))  # type: ignore[no-untyped-call]
        for value in model.state_dict().values():
            value.add_(torch.randn(value.shape) * 0.1)
    model.save_pretrained(folder)


def without(checkpoint: Checkpoint, name: str) -> Checkpoint:
    """Return the checkpoint as if `name` were not in its files."""
    return Checkpoint(
        path=checkpoint.path,
        config=checkpoint.config,
        specs={tensor: spec for tensor, spec in checkpoint.specs.items() if tensor != name},
        files={tensor: file for tensor, file in checkpoint.files.items() if tensor != name},
    )


def recipe_of(merge: Merge, *, dtype: str | None = None) -> Recipe:
    merges = {**{name: INNER[name] for name in merge.models if name in INNER}, "m": merge}
    return Recipe(models={name: ModelRef(source=name) for name in NAMES}, merges=merges, dtype=dtype, seed=11)


def plan_for(name: str, checkpoints: Mapping[str, Checkpoint]) -> Plan:
    return compile_plan(recipe_of(RECIPES[name]), checkpoints)


def assert_same_state(live: Any, stored: Any) -> None:
    ours, theirs = live.state_dict(), stored.state_dict()
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.dtype == theirs[name].dtype
        assert torch.equal(value, theirs[name]), name


def digests(checkpoints: Mapping[str, Checkpoint]) -> list[str]:
    files = [file for checkpoint in checkpoints.values() for file in checkpoint.weight_files]
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
