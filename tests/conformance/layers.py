"""Cases of layers put in another order, through `evomerge.build_tensors`, and of layers that are measured."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import transformers
from torch import Tensor

from evomerge import build_tensors
from evomerge.evaluate.layers import block_influence, layer_cluster
from evomerge.recipe import (
    Ends,
    ModelRef,
    Recipe,
    Slot,
    cluster_centres,
    layer_swap,
    passthrough,
    shared_layers,
)  # fmt: skip
from tests.conformance.cases import Case, Tensors

Configs = Mapping[str, Mapping[str, Any]]


def fixture_of(case: Case) -> tuple[dict[str, Tensors], Configs]:
    """Return the models a case is about, by name, and their configs: its own, or those of another case."""
    home = case.other(case.params.get("shared_weights_with", case.id))
    weights = {f"m{i}": model for i, model in enumerate(home.models)}
    return weights, dict(zip(weights, home.params["configs"], strict=True))


def loads(case: Case) -> None:
    """The models that other cases share are ones that transformers loads whole."""
    weights, configs = fixture_of(case)
    assert weights
    for name, state in weights.items():
        live(state, configs[name])


def stack(case: Case, name: str) -> Any:
    """The model that a recipe with a path, or a swap of layers, makes."""
    weights, configs = fixture_of(case)
    recipe = RECIPES[case.method](case.params, list(weights), configs)
    state, config = build_tensors(recipe, weights, configs)
    if "origin" in case.params:
        moved = {key: weights[f"m{i}"][source] for key, (i, source) in case.params["origin"].items()}
        assert state.keys() == moved.keys()
        assert all(torch.equal(state[key], value) for key, value in moved.items())
    if name == "merged":
        return state
    model, ids = live(state, config), case.tensor(case.aux["input_ids"])
    with torch.inference_mode():
        return model(ids).logits if name == "logits" else greedy(model, ids[:1], case)


def greedy(model: Any, ids: Tensor, case: Case) -> Tensor:
    """Return the greedy continuation, which must be the same with and without a cache."""
    room = case.expected["greedy_ids"].shape[1] - ids.shape[1]
    with_cache, without = (
        model.generate(
            ids, attention_mask=torch.ones_like(ids), max_new_tokens=room, do_sample=False, use_cache=cache,
            pad_token_id=0, eos_token_id=None,
        )
        for cache in (True, False)
    )  # fmt: skip
    assert torch.equal(with_cache, without)
    found: Tensor = with_cache
    return found


def influence(case: Case, name: str) -> Tensor:
    """How much each layer of a model changes what passes through it."""
    assert name == "bi"
    weights, configs = fixture_of(case)
    own = f"m{case.params['model']}"
    return torch.as_tensor(
        block_influence(live(weights[own], configs[own]), case.tensor(case.aux["input_ids"]))
    )


def clusters(case: Case, name: str) -> Tensor:
    """The layer in the middle of each cluster of similar neighbours."""
    assert name == "centers"
    params = case.params
    found = layer_cluster(case.read(case.aux["hidden"]), params["num_clusters"])
    if "clusters" in params:
        assert [list(each) for each in found] == params["clusters"]
    return torch.tensor([slot.layer for slot in cluster_centres("m0", found)])


def live(state: Tensors, config: Mapping[str, Any]) -> Any:
    """Return the transformers model of plain tensors, none of them missing or left over."""
    content = dict(config)
    loaded = transformers.AutoConfig.for_model(content.pop("model_type"), **content)
    kind: Any = transformers.LlamaForCausalLM
    model, info = kind.from_pretrained(
        None,
        config=loaded,
        state_dict=state,
        dtype=torch.float32,
        attn_implementation="eager",
        output_loading_info=True,
    )
    assert not info["missing_keys"]
    assert not info["unexpected_keys"]
    return model.eval()


Params = Mapping[str, Any]


def _path(params: Params, names: list[str], configs: Configs) -> Recipe:
    slots = tuple(Slot(model=names[i], layer=layer, scale=scale) for i, layer, scale in params["path"])
    ends = Ends(embed=names[params["embed_from"]], head=names[params["end_from"]])
    return Recipe(models=_refs(names), path=slots, ends=ends)


def _passthrough(params: Params, names: list[str], configs: Configs) -> Recipe:
    weights = tuple((word or "*", factor) for word, factor in params.get("tensor_scale", ()))
    slices = [(names[each["model"]], *each["layer_range"]) for each in params["slices"]]
    return Recipe(models=_refs(names), path=passthrough(slices, weights=weights), ends=Ends(weights=weights))


def _layer_swap(params: Params, names: list[str], configs: Configs) -> Recipe:
    task, language = names[params["task_model"]], names[params["language_model"]]
    swap = layer_swap(
        task, language, layers=configs[task]["num_hidden_layers"], bottom=params["bottom"], top=params["top"],
        transition=params.get("transition", 0), ends_from=params.get("ends_from", "language"),
    )  # fmt: skip
    return Recipe(models=_refs(names), merges={"swap": swap})


def _block_share(params: Params, names: list[str], configs: Configs) -> Recipe:
    path = shared_layers(
        names[0],
        params["groups"],
        lender=params.get("parent", "first"),
        own_norms=params.get("keep_own_norms", True),
    )
    return Recipe(models=_refs(names), path=path)


def _refs(names: list[str]) -> dict[str, ModelRef]:
    return {name: ModelRef(source=name) for name in names}


RECIPES: Mapping[str, Callable[[Params, list[str], Configs], Recipe]] = {
    "path": _path,
    "passthrough": _passthrough,
    "layer_swap": _layer_swap,
    "block_share": _block_share,
}
