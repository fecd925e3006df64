"""Paths of real models: scored is exported, and folded scales are the scales at run time."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from transformers import AutoModelForCausalLM

from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.tensors import Library, open_library
from evomerge.errors import RecipeError
from evomerge.merge.memory import ResidentModel
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Ends, Group, Merge, ModelRef, Recipe, Slot
from tests.merge.exporting import export, logits
from tests.merge.families import FAMILIES, save_random_model

Opened: TypeAlias = tuple[dict[str, Checkpoint], Library]

UNFOLDABLE = ("olmo2", "bloom_normed", "gpt1")
FOLDABLE = tuple(name for name in FAMILIES if name not in UNFOLDABLE)
NAMES = ("a", "b", "c")
AB = Merge(
    method="task_arithmetic",
    base="c",
    sources=("a", "b"),
    params={"weight": {"a": 0.5, "b": 0.25}},
    groups=(Group(modules=("mlp",), layers=(1, 1), params={"weight": {"a": -0.5, "b": 1.0}}),),
)
PLAIN = (("a", 0, 1.0), ("a", 1, 1.0), ("a", 1, 1.0), ("b", 2, 1.0))
SCALED = (("a", 0, 0.8), ("a", 1, 1.3), ("a", 1, 0.6), ("b", 2, 1.25), ("b", 0, 1.1))


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, str], dict[str, Checkpoint]]:
    """Return a function that gives three random models of a family in a dtype, written once."""
    root = tmp_path_factory.mktemp("families")

    def make(name: str, dtype: str) -> dict[str, Checkpoint]:
        folder = root / f"{name}-{dtype}"
        if not folder.exists():
            for seed, model in enumerate(NAMES):
                save_random_model(name, dtype, seed, folder / model)
        return {model: open_checkpoint(folder / model) for model in NAMES}

    return make


@pytest.fixture
def opened(
    sources: Callable[[str, str], dict[str, Checkpoint]], request: pytest.FixtureRequest
) -> Iterator[Opened]:
    """Yield the checkpoints of the family asked for, and their tensors."""
    checkpoints = sources(*request.param)
    library = open_library(checkpoints, checkpoints)
    yield checkpoints, library
    library.close()


def families(*names: str, dtype: str = "float32") -> pytest.MarkDecorator:
    return pytest.mark.parametrize("opened", [(name, dtype) for name in names], ids=names, indirect=True)


@families(*FAMILIES)
def test_a_path_without_scales_is_exported_as_scored(opened: Opened, tmp_path: Path) -> None:
    assert_exported_as_scored(recipe(*PLAIN), *opened, tmp_path)


@families(*FOLDABLE)
def test_a_path_with_scales_and_a_merge_is_exported_as_scored(opened: Opened, tmp_path: Path) -> None:
    path = (("ab", 1, 1.2), *SCALED[1:], ("ab", 1, 1.0))
    assert_exported_as_scored(recipe(*path), *opened, tmp_path)


@families("llama", "qwen2_tied", dtype="bfloat16")
def test_half_precision_is_exported_as_scored(opened: Opened, tmp_path: Path) -> None:
    assert_exported_as_scored(recipe(("ab", 0, 1.1), *SCALED), *opened, tmp_path)


@families("llama_tied", "qwen2_tied")
def test_only_one_models_tied_head_stays_tied(opened: Opened) -> None:
    assert compile_plan(recipe(*PLAIN[:3]), opened[0]).config["tie_word_embeddings"] is True
    plan = compile_plan(recipe(*PLAIN), opened[0])
    assert plan.config["tie_word_embeddings"] is False
    model = ResidentModel(opened[1], device=torch.device("cpu")).load(plan)
    assert torch.equal(model.lm_head.weight, opened[1].raw("b", "model.embed_tokens.weight"))
    assert torch.equal(model.model.norm.weight, opened[1].raw("b", "model.norm.weight"))


@families(*FOLDABLE)
def test_folded_scales_are_the_scales_at_run_time(opened: Opened) -> None:
    checkpoints, library = opened
    folded = live(recipe(*SCALED), checkpoints, library)
    expected = scaled_at_run_time(checkpoints, SCALED)
    torch.testing.assert_close(logits(folded), logits(expected), rtol=0.0, atol=1e-5)
    unscaled = live(recipe(*((name, layer, 1.0) for name, layer, _ in SCALED)), checkpoints, library)
    assert float((logits(unscaled) - logits(expected)).abs().max()) > 1e-3, "the scales do nothing here"


@families(*FOLDABLE)
def test_a_path_in_place_is_the_model(opened: Opened) -> None:
    path = tuple(("b", layer, 1.0) for layer in range(3))
    stored = AutoModelForCausalLM.from_pretrained(opened[0]["b"].path, dtype=torch.float32)
    assert torch.equal(logits(live(recipe(*path), *opened)), logits(stored))


@families(*FOLDABLE)
def test_a_repeated_layer_has_a_cache_of_its_own(opened: Opened) -> None:
    model = live(recipe(*SCALED), *opened)
    tokens = torch.tensor([[1, 7, 3, 30, 12, 9]])
    ask = {
        "attention_mask": torch.ones_like(tokens),
        "max_new_tokens": 8,
        "do_sample": False,
        "pad_token_id": 0,
    }
    kept, anew = (model.generate(tokens, use_cache=use_cache, **ask) for use_cache in (True, False))
    assert kept.shape == (1, 14)
    assert torch.equal(kept, anew)


@families("qwen2")
def test_kinds_of_attention_follow_their_layers(opened: Opened) -> None:
    plan = compile_plan(recipe(("a", 1, 1.0), ("b", 0, 1.0), ("a", 1, 1.0)), opened[0])
    kinds = ["sliding_attention", "full_attention", "sliding_attention"]
    assert (plan.config["num_hidden_layers"], plan.config["layer_types"]) == (3, kinds)


@families(*UNFOLDABLE)
def test_a_scale_that_cannot_be_folded_is_refused(opened: Opened) -> None:
    with pytest.raises(
        RecipeError, match=r"the scale 1\.3 of the stream cannot be folded into slot 1 \(layer 1 of `a`\)"
    ):
        compile_plan(recipe(("a", 0, 1.0), ("a", 1, 1.3)), opened[0])


@families("llama")
def test_candidates_of_one_length_are_written_in_place(opened: Opened) -> None:
    checkpoints, library = opened
    resident = ResidentModel(library, device=torch.device("cpu"))
    first = resident.load(compile_plan(recipe(*SCALED), checkpoints))
    again = compile_plan(recipe(*SCALED[::-1]), checkpoints)
    assert resident.fits(again)
    second = resident.load(again)
    assert second is first
    assert torch.equal(logits(second), logits(live(recipe(*SCALED[::-1]), checkpoints, library)))
    assert not resident.fits(compile_plan(recipe(*SCALED[:3]), checkpoints))


def recipe(*path: tuple[str, int, float], ends: Ends | None = None) -> Recipe:
    slots = tuple(Slot(model=name, layer=layer, scale=scale) for name, layer, scale in path)
    return Recipe(
        models={name: ModelRef(source=name) for name in NAMES},
        merges={"ab": AB} if any(slot.model == "ab" for slot in slots) else {},
        path=slots,
        ends=ends or Ends(),
        seed=5,
    )


def live(recipe: Recipe, checkpoints: Mapping[str, Checkpoint], library: Library) -> Any:
    return ResidentModel(library, device=torch.device("cpu")).load(compile_plan(recipe, checkpoints))


def scaled_at_run_time(
    checkpoints: Mapping[str, Checkpoint], path: tuple[tuple[str, int, float], ...]
) -> Any:
    """Return the path of whole layers, taken from the loaded models, each behind a hook that scales."""
    loaded: dict[str, Any] = {
        name: AutoModelForCausalLM.from_pretrained(checkpoints[name].path, dtype=torch.float32)
        for name in NAMES
    }
    model, first = copy.deepcopy(loaded[path[-1][0]]), loaded[path[0][0]].base_model
    layers = torch.nn.ModuleList(copy.deepcopy(stack(loaded[name])[1][layer]) for name, layer, _ in path)
    for layer, (_, _, scale) in zip(layers, path, strict=True):
        layer.register_forward_pre_hook(scale_first(scale), with_kwargs=True)
    setattr(model.base_model, stack(model)[0], layers)
    for name, module in first.named_children():
        if "emb" in name or name in ("wte", "wpe"):
            setattr(model.base_model, name, module)
    model.config.num_hidden_layers = len(path)
    if (kinds := getattr(model.config, "layer_types", None)) is not None:
        model.config.layer_types = [kinds[layer] for _, layer, _ in path]
    model.config.use_cache = False  # the copies share numbers, and so would share slots of a cache
    return model.eval()


def stack(model: Any) -> tuple[str, Any]:
    """Return the name and the list of the model's layers."""
    lists = model.base_model.named_children()
    return next((name, module) for name, module in lists if isinstance(module, torch.nn.ModuleList))


def scale_first(scale: float) -> Callable[..., tuple[tuple[Any, ...], dict[str, Any]]]:
    """Return a hook that scales the hidden state a layer is called with."""

    def hook(layer: Any, args: tuple[Any, ...], named: dict[str, Any]) -> Any:
        del layer
        return (args[0] * scale, *args[1:]), named

    return hook


def assert_exported_as_scored(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], library: Library, folder: Path
) -> None:
    plan = compile_plan(recipe, checkpoints)
    model = ResidentModel(library, device=torch.device("cpu")).load(plan)
    stored: Any = AutoModelForCausalLM.from_pretrained(export(plan, library, folder / "out"))
    assert stored.config.num_hidden_layers == len(recipe.path or ())
    ours, theirs = model.state_dict(), stored.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    assert torch.equal(logits(model), logits(stored))
    assert bool(logits(model).isfinite().all())
    other = replace(recipe, path=(recipe.path or ())[::-1], ends=Ends(embed=recipe.embed_from))
    assert not torch.equal(logits(live(other, checkpoints, library)), logits(model)), (
        "order does nothing here"
    )
