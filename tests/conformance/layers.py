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
from evomerge.recipe.layer_swap import EndsFrom, language_weights, layer_curve
from evomerge.recipe.path import ANY, WeightFactors
from tests.conformance.cases import Case, Tensors

Configs = Mapping[str, Mapping[str, Any]]


def fixture_of(case: Case) -> tuple[dict[str, Tensors], Configs]:
    """Return the models a case is about, by name, and their configs: its own, or those of another case."""
    home = case.other(case.params.get("shared_weights_with", case.id))
    weights = {f"m{i}": model for i, model in enumerate(home.models)}
    return weights, dict(zip(weights, case.params.get("configs", home.params["configs"]), strict=True))


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
        return (
            model(ids, attention_mask=mask_of(case)).logits if name == "logits" else greedy(model, ids, case)
        )


def greedy(model: Any, ids: Tensor, case: Case) -> Tensor:
    """Return the greedy continuation, which must be the same with and without a cache."""
    rows, length = case.expected["greedy_ids"].shape
    ids, room = ids[:rows], length - ids.shape[1]
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


def mask_of(case: Case) -> Tensor | None:
    """Return which tokens of a case are no padding; None if all of them."""
    return case.tensor(case.aux["attention_mask"]) if "attention_mask" in case.aux else None


def influence(case: Case, name: str) -> Tensor:
    """How much each layer of a model changes what passes through it."""
    assert name in ("bi", "merged")
    weights, configs = fixture_of(case)
    own = f"m{case.params.get('model', 0)}"
    found = block_influence(
        live(weights[own], configs[own]),
        case.tensor(case.aux["input_ids"]),
        mask_of(case),
        skip_first=case.params.get("skip_first", False),
    )
    return torch.as_tensor(found)


def clusters(case: Case, name: str) -> Tensor:
    """The layers in the middle of clusters of similar neighbours: each once, or `sharing` the whole depth."""
    assert name in ("centers", "sharing", "merged")
    params = case.params
    found = layer_cluster(case.read(case.aux["hidden"]), params["num_clusters"])
    if "clusters" in params:
        assert [list(each) for each in found] == params["clusters"]
    path = cluster_centres("m0", found, repeat=name == "sharing")
    return torch.tensor([slot.layer for slot in path])


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
    slots = tuple(Slot(model=names[i], layer=layer, scale=scale[0] if scale else 1.0)
                  for i, layer, *scale in params["path"])  # fmt: skip
    embed, head = (params.get(key) for key in ("embed_from", "end_from"))
    ends = Ends(embed=None if embed is None else names[embed], head=None if head is None else names[head])
    return Recipe(models=_refs(names), path=slots, ends=ends)


def _passthrough(params: Params, names: list[str], configs: Configs) -> Recipe:
    """The slices of one recipe. What scales the weights of the outer ones scales the ends next to them."""
    everywhere = params.get("tensor_scale", ())
    scales = [_factors(each.get("tensor_scale", everywhere)) for each in params["slices"]]
    path = [
        slot
        for each, weights in zip(params["slices"], scales, strict=True)
        for slot in passthrough([(names[each["model"]], *each["layer_range"])], weights=weights)
    ]
    first, last = scales[0], scales[-1]
    ends = (
        first
        if first == last
        else (*_at("model.embed_tokens", first), *_at("model.norm", last), *_at("lm_head", last))
    )
    return Recipe(models=_refs(names), path=tuple(path), ends=Ends(weights=ends))


def _factors(scale: Any) -> WeightFactors:
    """Return mergekit's `scale`, a number or pairs of a filter and one, as factors of weights."""
    pairs = [(None, scale)] if isinstance(scale, int | float) else scale
    return tuple((word or ANY, float(factor)) for word, factor in pairs)


def _at(name: str, weights: WeightFactors) -> WeightFactors:
    """Return the factor of the tensor called `name`, if it has one."""
    return tuple((name, factor) for word, factor in weights if word == ANY or word in f"{name}.weight")[:1]


def _layer_swap(params: Params, names: list[str], configs: Configs) -> Recipe:
    task, language = names[params["task_model"]], names[params["language_model"]]
    ends: EndsFrom = params.get("ends_from", "language")
    curve = params.get("language_weight_per_layer")
    if "bottom" in params:
        layers, transition = configs[task]["num_hidden_layers"], params.get("transition", 0)
        widths = {"bottom": params["bottom"], "top": params["top"], "transition": transition}
        assert curve in (None, list(language_weights(layers, **widths)))
        swap = layer_swap(task, language, layers=layers, **widths, ends_from=ends)
    else:
        swap = layer_curve(task, language, params["language_weight_per_layer"], ends_from=ends)
    return Recipe(models=_refs(names), merges={"swap": swap})


def _block_share(params: Params, names: list[str], configs: Configs) -> Recipe:
    path = shared_layers(
        names[params.get("model", 0)],
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
