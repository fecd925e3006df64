"""Path candidates in a live model: one storage for what is the same, replaced and never written to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForCausalLM

from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.tensors import Library, open_library
from evomerge.errors import EvaluationError, MergeError
from evomerge.merge import memory
from evomerge.merge.compiling import Loops
from evomerge.merge.execute import Execution
from evomerge.merge.kernels.loops import Loop
from evomerge.merge.memory import ResidentModel
from evomerge.merge.plan import Output, Plan
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Merge, ModelRef, Recipe, Slot
from tests.merge.exporting import export, logits
from tests.merge.test_executors import Family, save_random_model

Opened: TypeAlias = tuple[dict[str, Checkpoint], Library]
Step: TypeAlias = tuple[str, int, float]

SIZES: dict[str, Any] = {
    "vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2,
    "num_key_value_heads": 1, "intermediate_size": 24, "max_position_embeddings": 64, "eos_token_id": None,
}  # fmt: skip
SLIDING = {
    "use_sliding_window": True,
    "sliding_window": 3,
    "layer_types": ["full_attention", "sliding_attention", "full_attention"],
}
FAMILIES = {
    "llama": Family("llama", SIZES),
    "llama_tied": Family("llama", SIZES | {"tie_word_embeddings": True}),
    "qwen2": Family("qwen2", SIZES | SLIDING),
    "gemma2": Family("gemma2", SIZES | {"head_dim": 8}),
    "gemma3_text": Family("gemma3_text", SIZES | {"head_dim": 8, "tie_word_embeddings": True}),
    "gpt2": Family("gpt2", {"vocab_size": 32, "n_embd": 16, "n_layer": 3, "n_head": 2, "n_positions": 64}),
    "qwen3_moe": Family(
        "qwen3_moe",
        SIZES | {"head_dim": 8, "num_experts": 3, "moe_intermediate_size": 8, "num_experts_per_tok": 2},
    ),
}
NAMES = ("a", "b")
LINEAR = Merge(method="linear", sources=NAMES, params={"weight": 0.3})
ONCE = (("a", 0, 1.0), ("a", 1, 1.0), ("b", 2, 1.0))
REPEATED = (*ONCE[:2], ONCE[1], *ONCE[1:], ONCE[2])
DEPTHS = (ONCE, REPEATED, ONCE[:1], REPEATED[::-1], ONCE[::-1], (("m", 1, 1.0), ("a", 1, 1.0), ("m", 1, 1.0)))


@pytest.fixture
def opened(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Opened]:
    """Yield two random models of the family asked for, and their tensors."""
    family = FAMILIES[getattr(request, "param", "llama")]
    for seed, name in enumerate(NAMES):
        save_random_model(family, "float32", seed, tmp_path / name)
    checkpoints = {name: open_checkpoint(tmp_path / name) for name in NAMES}
    library = open_library(checkpoints, checkpoints)
    yield checkpoints, library
    library.close()


def families(*names: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("opened", names, indirect=True)


def test_slots_that_are_the_same_share_one_storage_in_modules_of_their_own(opened: Opened) -> None:
    path = (("m", 0, 1.0), ("a", 1, 1.0), ("a", 1, 2.0), ("m", 0, 2.0), ("a", 1, 0.25))
    model = resident(opened).load(plan_of(path, opened))
    assert len(set(model.model.layers)) == 5
    assert [layer.self_attn.layer_idx for layer in model.model.layers] == list(range(5))
    for inside, apart in (("self_attn.q_proj", False), ("mlp.up_proj", False), ("mlp.down_proj", True)):
        places = [layer.get_submodule(inside).weight.data_ptr() for layer in model.model.layers]
        assert places[1] == places[4], "copies of one layer"
        assert (places[0] != places[3]) is apart, "one merged layer, of which factors make two"
        assert (places[2] != places[1]) is apart
        assert places[0] != places[1]


def test_a_repeated_stack_holds_what_it_holds_once(opened: Opened) -> None:
    live = resident(opened)
    once = held(live.load(plan_of(ONCE, opened)))
    assert once == plan_of(ONCE, opened).nbytes
    assert held(live.load(plan_of(ONCE * 3, opened))) == once
    doubled = (("a", 0, 2.0), *ONCE[1:])
    outputs = plan_of(doubled, opened).outputs
    divided = sum(each.spec.nbytes for each in outputs if "o_proj" in each.name or "down_proj" in each.name)
    assert held(live.load(plan_of(doubled + ONCE + ONCE, opened))) == once  # all are divided by 2
    assert held(live.load(plan_of(doubled * 3, opened))) == once + 2 * divided  # by 2, 4 and 8


def test_a_copy_that_needs_no_conversion_is_the_mapped_source(opened: Opened) -> None:
    name = "model.layers.2.mlp.up_proj.weight"
    model = resident(opened).load(plan_of(ONCE, opened))
    assert model.get_parameter(name).data_ptr() == opened[1].raw("b", name).data_ptr()
    other = resident(opened).load(plan_of(ONCE, opened, dtype="bfloat16"))
    assert other.get_parameter(name).dtype == torch.bfloat16
    assert torch.equal(other.get_parameter(name), opened[1].raw("b", name).bfloat16())


@families("llama", "llama_tied", "gpt2", "gemma3_text", "qwen3_moe")
def test_what_is_shared_or_mapped_is_replaced_and_not_written_to(opened: Opened) -> None:
    """Between copies come merges, of the same form as the path before them."""
    before = values(opened)
    live = resident(opened)
    in_place = tuple(("a", layer, 1.0) for layer in range(3))
    repeated = tuple(("b", 1, 1.0) for _ in range(3))
    plain = Recipe(models=refs(), merges={"m": LINEAR})
    for path in (in_place, repeated, None, repeated, in_place, None):
        plan = compile_plan(plain, opened[0]) if path is None else plan_of(path, opened)
        found = live.load(plan).state_dict()
        for output in plan.outputs:
            name = output.name if output.name in found else f"transformer.{output.name}"
            if ".experts." not in name:  # fused on loading
                assert torch.equal(found[name], Execution(plan, opened[1]).produce(output)), name
    assert all(torch.equal(now, value) for now, value in zip(values(opened), before, strict=True))


@families(*FAMILIES)
def test_depth_may_change_back_and_forth(opened: Opened, tmp_path: Path) -> None:
    """Twice over, so that modules come back into use; each time the model is the exported one, to the bit."""
    live = resident(opened)
    folders: dict[int, Path] = {}
    for number, path in [*enumerate(DEPTHS)] * 2:
        plan = plan_of(path, opened)
        model = live.load(plan)
        if number not in folders:
            folders[number] = export(plan, opened[1], tmp_path / f"path{number}")
        plain: Any = AutoModelForCausalLM.from_pretrained(folders[number])
        ours, theirs = model.state_dict(), plain.state_dict()
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert torch.equal(logits(model), logits(plain))
        buffers = dict(plain.named_buffers())
        assert all(torch.equal(buffer, buffers[name]) for name, buffer in model.named_buffers())
        assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) is bool(
            plain.get_output_embeddings().weight is plain.get_input_embeddings().weight
        )


@families("llama", "qwen2", "gemma2", "gpt2")
def test_a_cache_keeps_repeated_layers_apart_after_changes_of_depth(opened: Opened) -> None:
    live = resident(opened)
    tokens = torch.tensor([[1, 7, 3, 30, 12, 9]])
    ask = {
        "attention_mask": torch.ones_like(tokens),
        "max_new_tokens": 8,
        "do_sample": False,
        "pad_token_id": 0,
    }
    for path in (ONCE, REPEATED, ONCE[:2], REPEATED):
        model = live.load(plan_of(path, opened))
        kept, anew = (model.generate(tokens, use_cache=use_cache, **ask) for use_cache in (True, False))
        assert kept.shape == (1, 14)
        assert torch.equal(kept, anew)


def test_modules_come_back_and_hold_nothing_in_between(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_KEPT", 2)
    live = resident(opened)
    three, five = live.load(plan_of(ONCE, opened)), live.load(plan_of(REPEATED, opened))
    assert held(three) < 100 * len(list(three.parameters()))
    assert live.load(plan_of(ONCE[::-1], opened)) is three
    assert held(five) < 100 * len(list(five.parameters()))
    live.load(plan_of(ONCE[:1], opened))  # now the modules of five layers are the ones used longest ago
    assert live.load(plan_of(ONCE, opened)) is three
    assert live.load(plan_of(REPEATED, opened)) is not five


@pytest.mark.parametrize("depth", [1, 6, 8])
def test_two_candidates_are_never_there_at_once(
    opened: Opened, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a tensor is made, the models hold the new ones made so far and no others."""
    live = resident(opened)
    live.load(plan_of(tuple(("a", layer % 3, 1.5) for layer in range(6)), opened))
    plan = plan_of(tuple(("b", layer % 3, 1.25) for layer in range(depth)), opened)
    produce = Execution.produce
    seen: list[int] = []

    def watched(execution: Execution, output: Output, *, lend: bool = False) -> Tensor:
        seen.append(sum(held(each.model) for each in live._skeletons))
        return produce(execution, output, lend=lend)

    monkeypatch.setattr(Execution, "produce", watched)
    model = live.load(plan)
    parameters = len(plan.outputs) + 100
    assert seen[0] < 4 * parameters < seen[-1]
    assert seen[-1] < held(model) + 4 * parameters


def test_a_plan_that_fails_midway_leaves_the_model_usable(opened: Opened) -> None:
    live = resident(opened)
    expected = logits(live.load(plan_of(ONCE, opened)))
    huge = Slot(model="a", layer=1, weights=(("down_proj", 1e39),))
    path = (Slot(model="a", layer=0), huge, Slot(model="b", layer=2))
    with pytest.raises(MergeError, match="gave values that F32 cannot hold"):
        live.load(compile_plan(Recipe(models=refs(), path=path), opened[0]))
    assert torch.equal(logits(live.load(plan_of(ONCE, opened))), expected)


def test_a_candidate_is_written_over_the_last_and_is_its_own(opened: Opened) -> None:
    live = resident(opened)
    places = set()
    for weight in (0.3, 0.8):
        model = live.load(merge_of(weight, opened))
        places.add(model.model.layers[1].mlp.up_proj.weight.data_ptr())
        fresh = resident(opened).load(merge_of(weight, opened))
        pairs = zip(model.parameters(), fresh.parameters(), strict=True)
        assert all(torch.equal(ours, theirs) for ours, theirs in pairs)
    assert len(places) == 1


def test_what_is_merged_as_before_is_not_merged_again(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    live, made = resident(opened), []
    produce = Execution.produce

    def counted(self: Execution, output: Output, **how: Any) -> Tensor:
        made.append(output.name)
        return produce(self, output, **how)

    monkeypatch.setattr(Execution, "produce", counted)
    live.load(merge_of(0.3, opened))
    tensors = len(made)
    live.load(merge_of(0.3, opened))
    assert len(made) == tensors > 0
    live.load(merge_of(0.4, opened))
    assert len(made) == 2 * tensors


@pytest.mark.parametrize("method", ["linear", "ties", "breadcrumbs", "dare_ties"])
def test_a_model_merged_by_loops_is_the_one_merged_by_blocks(
    method: str, opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = None if method == "linear" else "a"
    merge = Merge(method=method, base=base, sources=NAMES, params={} if base is None else {"density": 0.4})
    plan = compile_plan(Recipe(models=refs(), merges={"m": merge}), opened[0])
    expected = [each.clone() for each in resident(opened).load(plan).parameters()]
    ran: list[Loop] = []

    def run(loops: Loops, loop: Loop, base: Tensor | None, models: list[Tensor], into: Tensor) -> bool:
        ran.append(loop)
        return bool(loop.function(base, models, loop.numbers, into.view(-1)))

    monkeypatch.setattr(Loops, "run", run)
    monkeypatch.setattr(Loops, "suits", lambda loops, into: into.numel() > 0)
    monkeypatch.setattr(memory, "LEAST_PARAMETERS", 0)
    monkeypatch.setattr(memory, "can_compile", lambda device: True)
    found = resident(opened).load(plan).parameters()
    assert ran
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(found, expected, strict=True))


def test_a_later_plan_that_leaves_a_parameter_unset_is_refused(opened: Opened) -> None:
    live = resident(opened)
    plan = plan_of(ONCE, opened)
    live.load(plan)
    less = [output for output in plan.outputs if output.name != "model.norm.weight"]
    with pytest.raises(EvaluationError, match=r"leaves `model\.norm\.weight` of the model unset"):
        live.load(Plan(outputs=tuple(less), config=plan.config, template=plan.template, seed=0))


@families("llama_tied")
def test_a_head_beside_a_tied_embedding_is_not_tied_for_want_of_values(opened: Opened) -> None:
    """A config may say that they are tied where the plan has both; plain loading goes by their values."""
    untied = compile_plan(path_of(ONCE), opened[0])
    assert untied.config["tie_word_embeddings"] is False
    plan = Plan(
        outputs=untied.outputs, config={**untied.config, "tie_word_embeddings": True}, template="a", seed=0
    )
    model = resident(opened).load(plan)
    assert torch.equal(model.lm_head.weight, opened[1].raw("b", "model.embed_tokens.weight"))
    assert torch.equal(model.model.embed_tokens.weight, opened[1].raw("a", "model.embed_tokens.weight"))


def refs() -> dict[str, ModelRef]:
    return {name: ModelRef(source=name) for name in NAMES}


def path_of(path: tuple[Step, ...], *, dtype: str | None = None) -> Recipe:
    slots = tuple(Slot(model=name, layer=layer, scale=scale) for name, layer, scale in path)
    merges = {"m": LINEAR} if any(slot.model == "m" for slot in slots) else {}
    return Recipe(models=refs(), merges=merges, path=slots, dtype=dtype)


def plan_of(path: tuple[Step, ...], opened: Opened, *, dtype: str | None = None) -> Plan:
    return compile_plan(path_of(path, dtype=dtype), opened[0])


def merge_of(weight: float, opened: Opened) -> Plan:
    merge = Merge(method="linear", sources=NAMES, params={"weight": {"a": weight, "b": 1 - weight}})
    return compile_plan(Recipe(models=refs(), merges={"m": merge}), opened[0])


def resident(opened: Opened) -> ResidentModel:
    return ResidentModel(opened[1], device=torch.device("cpu"))


def held(model: Any) -> int:
    """Return the bytes of the storages that a model's parameters use, each once."""
    storages = (tensor.untyped_storage() for tensor in model.parameters())
    return sum({storage.data_ptr(): storage.nbytes() for storage in storages}.values())


def values(opened: Opened) -> list[Tensor]:
    """Return what the sources hold, as whoever reads them next will find it."""
    return [opened[1].raw(name, tensor).clone() for name in NAMES for tensor in opened[0][name].specs]
