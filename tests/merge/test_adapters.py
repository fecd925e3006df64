"""Merging adapters: exact where the method works on task vectors of the very base, float32 elsewhere."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from evomerge.checkpoints.adapters import open_adapter
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.tensors import open_library
from evomerge.merge.disk import write_weights
from evomerge.merge.execute import Execution
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Merge, ModelRef, Recipe
from tests.merge.conftest import WriteCheckpoint

NAME = "model.layers.1.mlp.up_proj.weight"


def adapter(folder: Path, base: Checkpoint) -> tuple[Checkpoint, Tensor]:
    """Return a small adapter of one tensor, and its product."""
    torch.manual_seed(7)
    a, b = 1e-3 * torch.randn(2, 3), torch.randn(4, 2)
    folder.mkdir()
    prefix = "base_model.model." + NAME.removesuffix(".weight")
    save_file(
        {f"{prefix}.lora_A.weight": a, f"{prefix}.lora_B.weight": b}, folder / "adapter_model.safetensors"
    )
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 2}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return open_adapter(folder, base), b @ a


def merged(models: dict[str, Checkpoint], merge: Merge) -> dict[str, Tensor]:
    refs = {name: ModelRef(source=name) for name in models}
    plan = compile_plan(Recipe(models=refs, merges={"m": merge}), models)
    execution = Execution(plan, open_library(models, plan.models))
    return {output.name: execution.produce(output) for output in plan.outputs}


def test_a_task_vector_is_the_product_itself(
    write_checkpoint: WriteCheckpoint, llama_tensors: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    tensors = {name: 1000 * tensor for name, tensor in llama_tensors(0).items()}
    base = write_checkpoint("base", tensors)
    one, product = adapter(tmp_path / "one", base)
    assert not torch.equal((tensors[NAME] + product) - tensors[NAME], product)  # a detour would cost digits
    merge = Merge(method="task_arithmetic", base="base", sources=("one",), params={"weight": 1e6})
    got = merged({"base": base, "one": one}, merge)
    for name, tensor in tensors.items():
        want = tensor + torch.tensor(1e6) * product if name == NAME else tensor
        assert torch.equal(got[name], want)
    same_content = replace(base, path=tmp_path / "elsewhere")
    detour = merged({"base": same_content, "one": one}, merge)
    assert torch.equal(detour[NAME], tensors[NAME] + 1e6 * ((tensors[NAME] + product) - tensors[NAME]))


def test_the_weights_of_an_adapted_model_are_its_base_and_the_product_in_float32(
    write_checkpoint: WriteCheckpoint, llama_tensors: Callable[..., dict[str, Tensor]], tmp_path: Path
) -> None:
    stored = {name: tensor.to(torch.bfloat16) for name, tensor in llama_tensors(0).items()}
    base, other = write_checkpoint("base", stored), write_checkpoint("other", llama_tensors(1))
    one, product = adapter(tmp_path / "one", base)
    models = {"other": other, "one": one}
    merge = Merge(method="task_arithmetic", base="other", sources=("one",), params={"weight": 1.0})
    got = merged(models, merge)
    for name, tensor in llama_tensors(1).items():
        mine = stored[name].float() + (product if name == NAME else 0)
        assert torch.equal(got[name], tensor + (mine - tensor))
    alone = merged({"one": one}, Merge(method="linear", sources=("one",), params={"weight": 1.0}))
    assert alone[NAME].dtype == torch.bfloat16
    assert torch.equal(alone[NAME], (stored[NAME].float() + product).to(torch.bfloat16))


def test_the_number_of_threads_does_not_show(tmp_path: Path, write_checkpoint: WriteCheckpoint) -> None:
    torch.manual_seed(0)
    name = "model.layers.0.self_attn.q_proj.weight"
    base = write_checkpoint(
        "base", {"model.embed_tokens.weight": torch.randn(5, 700), name: torch.randn(901, 700)}
    )
    folder = tmp_path / "one"
    folder.mkdir()
    prefix = "base_model.model." + name.removesuffix(".weight")
    parts = {f"{prefix}.lora_A.weight": torch.randn(61, 700), f"{prefix}.lora_B.weight": torch.randn(901, 61)}
    save_file(parts, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text('{"peft_type": "LORA", "r": 61, "lora_alpha": 3}')
    models = {"base": base, "one": open_adapter(folder, base)}
    merge = Merge(method="task_arithmetic", base="base", sources=("one",), params={"weight": 0.7})
    refs = {each: ModelRef(source=each) for each in models}
    plan = compile_plan(Recipe(models=refs, merges={"m": merge}), models)
    before, written = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            (tmp_path / str(threads)).mkdir()
            write_weights(Execution(plan, open_library(models, plan.models)), tmp_path / str(threads))
            written.append((tmp_path / str(threads) / "model.safetensors").read_bytes())
    finally:
        torch.set_num_threads(before)
    assert written[0] == written[1]
