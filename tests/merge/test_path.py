"""Planning a path: which tensor goes where, times what, and which paths are refused."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from evomerge.errors import CheckpointError, RecipeError
from evomerge.merge.tensors import build_tensors, merge_tensors
from evomerge.recipe import Ends, Group, Merge, ModelRef, Recipe, Slot

DEPTH = 3
EMBED, NORM, HEAD = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
INSIDE = (
    "input_layernorm.weight", "self_attn.q_proj.weight", "self_attn.k_proj.weight", "self_attn.v_proj.weight",
    "self_attn.q_norm.weight", "self_attn.o_proj.weight", "self_attn.o_proj.bias",
    "post_attention_layernorm.weight", "mlp.gate_proj.weight", "mlp.up_proj.weight", "mlp.down_proj.weight",
    "mlp.down_proj.bias",
)  # fmt: skip
DIVIDED = {each for each in INSIDE if "o_proj" in each or "down_proj" in each}
CONFIG = {"model_type": "llama", "num_hidden_layers": DEPTH, "num_attention_heads": 2}
Tensors = dict[str, Tensor]


def tensors(seed: int, *, depth: int = DEPTH, width: int = 4, tied: bool = False) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    layers = [f"model.layers.{layer}.{inside}" for layer in range(depth) for inside in INSIDE]
    names = [EMBED, *layers, NORM, *([] if tied else [HEAD])]
    return {name: torch.randn(width, width, generator=generator) for name in names}


WEIGHTS = {name: tensors(seed) for seed, name in enumerate("abc")}


def build(
    *path: Slot,
    weights: Mapping[str, Tensors] = WEIGHTS,
    configs: Mapping[str, Mapping[str, Any]] | None = None,
    **rest: Any,
) -> tuple[Tensors, dict[str, Any]]:
    recipe = Recipe(models={name: ModelRef(source=name) for name in weights}, path=path, **rest)
    return build_tensors(recipe, weights, configs or dict.fromkeys(weights, CONFIG))


def slot(model: str, layer: int, **rest: Any) -> Slot:
    return Slot(model=model, layer=layer, **rest)


def layer_of(made: Tensors, number: int) -> Tensors:
    start = f"model.layers.{number}."
    return {name.removeprefix(start): each for name, each in made.items() if name.startswith(start)}


def assert_same(found: Tensors, expected: Tensors) -> None:
    assert list(found) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=1e-6, atol=0.0)


def test_layers_take_the_number_of_their_slot() -> None:
    made, config = build(slot("b", 2), slot("a", 0), slot("b", 2), slot("a", 1))
    for number, (model, layer) in enumerate([("b", 2), ("a", 0), ("b", 2), ("a", 1)]):
        found, expected = layer_of(made, number), layer_of(WEIGHTS[model], layer)
        assert all(torch.equal(found[name], expected[name]) for name in INSIDE)
    assert len(made) == 4 * len(INSIDE) + 3
    assert torch.equal(made[EMBED], WEIGHTS["b"][EMBED])
    assert torch.equal(made[NORM], WEIGHTS["a"][NORM])
    assert torch.equal(made[HEAD], WEIGHTS["a"][HEAD])
    assert config["num_hidden_layers"] == 4


def test_outputs_own_their_memory() -> None:
    """Sources are mapped files, and safetensors refuses tensors that share storage."""
    made, _ = build(slot("a", 0), slot("a", 0))
    assert len({each.data_ptr() for each in made.values()}) == len(made)
    assert not {each.data_ptr() for each in made.values()} & {
        each.data_ptr() for each in WEIGHTS["a"].values()
    }


def test_ends_may_come_from_elsewhere() -> None:
    made, _ = build(slot("a", 0), ends=Ends(embed="b", head="c", weights=(("norm", 3.0),)))
    assert torch.equal(made[EMBED], WEIGHTS["b"][EMBED])
    assert torch.equal(made[HEAD], WEIGHTS["c"][HEAD])
    assert torch.equal(made[NORM], 3 * WEIGHTS["c"][NORM])


def test_what_a_block_writes_is_divided_by_the_scales_so_far() -> None:
    made, _ = build(
        slot("a", 0, scale=0.5), slot("b", 1), slot("a", 2, scale=3.0), slot("a", 0, scale=1 / 1.5)
    )
    for number, (model, layer, product) in enumerate(
        [("a", 0, 0.5), ("b", 1, 0.5), ("a", 2, 1.5), ("a", 0, 1)]
    ):
        source = layer_of(WEIGHTS[model], layer)
        expected = {name: each / product if name in DIVIDED else each for name, each in source.items()}
        assert_same(layer_of(made, number), expected)
    assert torch.equal(made[NORM], WEIGHTS["a"][NORM])


def test_the_first_factor_that_fits_multiplies_weights() -> None:
    factors = (("o_proj", 0.5), ("self_attn", 2.0), ("*", -1.0))
    made, _ = build(slot("a", 0), slot("a", 1, weights=factors, scale=4.0))
    by = {"self_attn.o_proj.weight": 0.125, "self_attn.o_proj.bias": 0.125, "self_attn.q_proj.weight": 2.0,
          "mlp.up_proj.weight": -1.0, "mlp.down_proj.bias": -0.25}  # fmt: skip
    found, source = layer_of(made, 1), layer_of(WEIGHTS["a"], 1)
    assert_same({name: found[name] for name in by}, {name: source[name] * by[name] for name in by})
    assert all(torch.equal(each, layer_of(WEIGHTS["a"], 0)[name]) for name, each in layer_of(made, 0).items())


def test_a_factor_finds_a_tensor_by_its_name_in_the_stack() -> None:
    factors = (("layers.1.", 0.5), ("model.layers", 3.0))
    made, _ = build(*(slot("a", 2, weights=factors) for _ in range(3)))
    for position, factor in enumerate((3.0, 0.5, 3.0)):
        assert_same(
            layer_of(made, position),
            {inside: factor * value for inside, value in layer_of(WEIGHTS["a"], 2).items()},
        )


def test_norms_may_come_from_another_layer() -> None:
    made, _ = build(slot("a", 1, norms=2))
    lent, own = layer_of(WEIGHTS["a"], 1), layer_of(WEIGHTS["a"], 2)
    for name, found in layer_of(made, 0).items():
        assert torch.equal(found, own[name] if "layernorm" in name else lent[name]), name


MORE_OF_B = Group(modules=("mlp",), layers=(1, 1), params={"weight": {"a": 1, "b": 3}})
MERGES = {
    "ties": Merge(method="ties", base="c", sources=("a", "b"), params={"density": 0.4, "scope": "model"}),
    "dare": Merge(method="dare_linear", base="c", sources=("a", "b"), params={"density": 0.5}),
    "linear": Merge(method="linear", sources=("a", "b"), groups=(MORE_OF_B,)),
}


@pytest.mark.parametrize("name", MERGES)
def test_a_merge_is_the_same_model_wherever_its_layers_end_up(name: str) -> None:
    """Masks, groups and what is looked at as a whole go by the merge's own layers, all of them."""
    whole = Recipe(models={each: ModelRef(source=each) for each in "abc"}, merges={"m": MERGES[name]}, seed=3)
    expected, _ = build_tensors(whole, WEIGHTS, dict.fromkeys("abc", CONFIG))
    path = (slot("m", 2), slot("c", 0), slot("m", 1, scale=2.0), slot("m", 1))
    made, _ = build(*path, merges={"m": MERGES[name]}, seed=3)
    for number, (model, layer, product) in enumerate(
        [(expected, 2, 1), (WEIGHTS["c"], 0, 1), (expected, 1, 2), (expected, 1, 2)]
    ):
        source = layer_of(model, layer)
        assert_same(
            layer_of(made, number), {k: v / product if k in DIVIDED else v for k, v in source.items()}
        )
    assert torch.equal(made[EMBED], expected[EMBED])
    assert torch.equal(made[HEAD], expected[HEAD])


def test_two_merges_of_one_path_are_looked_at_each_on_its_own() -> None:
    dense = replace(MERGES["ties"], params={"density": 0.9, "scope": "model"})
    made, _ = build(slot("x", 0), slot("y", 0), merges={"x": MERGES["ties"], "y": dense})
    for number, density in enumerate((0.4, 0.9)):
        params = {"density": density, "scope": "model"}
        expected = merge_tensors("ties", WEIGHTS["c"], [WEIGHTS["a"], WEIGHTS["b"]], params)
        assert_same(layer_of(made, number), layer_of(expected, 0))


def test_a_path_has_the_dtypes_of_its_template() -> None:
    halves = {name: each.to(torch.bfloat16) for name, each in WEIGHTS["b"].items()}
    made, _ = build(slot("a", 0), slot("b", 1, scale=3.0), weights={**WEIGHTS, "b": halves})
    assert {each.dtype for each in made.values()} == {torch.float32}
    made, _ = build(slot("b", 0), slot("a", 1, scale=3.0), weights={**WEIGHTS, "b": halves})
    assert {each.dtype for each in made.values()} == {torch.bfloat16}
    once = (layer_of(WEIGHTS["a"], 1)["mlp.down_proj.weight"] * (1 / 3.0)).to(torch.bfloat16)
    assert torch.equal(layer_of(made, 1)["mlp.down_proj.weight"], once)
    made, config = build(slot("a", 0), slot("b", 1), weights={**WEIGHTS, "b": halves}, dtype="float16")
    assert {each.dtype for each in made.values()} == {torch.float16}
    assert config["dtype"] == "float16"


@pytest.mark.parametrize(
    ("embed", "head", "tied"),
    [("t", "t", True), ("t", "u", False), ("a", "t", False), ("t", "a", False), ("a", "a", False)],
)
def test_a_head_is_tied_only_to_the_embedding_of_its_own_model(embed: str, head: str, tied: bool) -> None:
    weights = {**WEIGHTS, "t": tensors(7, tied=True), "u": tensors(8, tied=True)}
    made, config = build(slot("t", 0), ends=Ends(embed=embed, head=head), weights=weights)
    assert config["tie_word_embeddings"] is tied
    assert (HEAD not in made) is tied
    if not tied:
        assert torch.equal(made[HEAD], weights[head].get(HEAD, weights[head][EMBED]))


def test_a_tied_model_is_untied_on_request() -> None:
    weights = {"t": tensors(7, tied=True)}
    made, config = build(slot("t", 0), weights=weights, untie=True)
    assert config["tie_word_embeddings"] is False
    assert torch.equal(made[HEAD], weights["t"][EMBED])


def test_models_of_other_depths_share_a_path() -> None:
    weights = {"a": WEIGHTS["a"], "deep": tensors(4, depth=5)}
    configs = {"a": CONFIG, "deep": {**CONFIG, "num_hidden_layers": 5}}
    made, config = build(slot("a", 0), slot("deep", 4), weights=weights, configs=configs)
    assert config["num_hidden_layers"] == 2
    assert_same(layer_of(made, 1), layer_of(weights["deep"], 4))


def test_lists_with_an_entry_per_layer_are_rebuilt_along_the_path() -> None:
    configs = {
        "a": {**CONFIG, "layer_types": ["x", "y", "x"], "no_rope_layers": [1, 0, 1], "mlp_only_layers": [2]},
        "b": {**CONFIG, "layer_types": ["y", "y", "x"], "no_rope_layers": [0, 1, 1], "mlp_only_layers": [0]},
    }
    weights = {name: WEIGHTS[name] for name in "ab"}
    path = [slot("a", 2), slot("b", 0), slot("a", 1), slot("b", 2)]
    _, config = build(*path, weights=weights, configs=configs)
    assert config["layer_types"] == ["x", "y", "y", "x"]
    assert config["no_rope_layers"] == [1, 0, 0, 1]
    assert config["mlp_only_layers"] == [0, 1]
    assert configs["a"]["layer_types"] == ["x", "y", "x"], "the source's config was written to"


def test_lists_of_layer_numbers_are_rebuilt_along_the_path() -> None:
    """Also where a list is as long as the model is deep, or empty in the model that gives the config."""
    weights = {name: WEIGHTS[name] for name in "ab"}
    for key in ("mlp_only_layers", "moe_layers"):
        for ours, theirs, expected in (([0, 1, 2], [1], [0, 1, 2]), ([], [1], [1]), ([2], [], [0])):
            configs = {"a": {**CONFIG, key: ours}, "b": {**CONFIG, key: theirs}}
            _, config = build(slot("a", 2), slot("b", 1), slot("a", 1), weights=weights, configs=configs)
            assert config[key] == expected


def test_a_list_that_one_model_lacks_is_filled_in_only_where_it_says_one_thing() -> None:
    """Configs written before transformers had `layer_types` do not have it."""
    weights = {name: WEIGHTS[name] for name in "ab"}
    new = {**CONFIG, "layer_types": ["full_attention"] * DEPTH}
    path = [slot("a", 0), slot("b", 2)]
    assert (
        build(*path, weights=weights, configs={"a": new, "b": CONFIG})[1]["layer_types"]
        == ["full_attention"] * 2
    )
    assert "layer_types" not in build(*path, weights=weights, configs={"a": CONFIG, "b": new})[1]
    mixed = {**new, "layer_types": ["full_attention", "sliding_attention", "full_attention"]}
    with pytest.raises(RecipeError, match="the config of `b` has no `layer_types` for its 3 layers"):
        build(*path, weights=weights, configs={"a": mixed, "b": CONFIG})


@pytest.mark.parametrize(
    "rule",
    [
        {"first_k_dense_replace": 1},
        {"num_kv_shared_layers": 2},
        {"use_sliding_window": True, "max_window_layers": 1},
        {"decoder_sparse_step": 2},
        {"interleave_moe_layer_step": 2},
        {"scale_attn_by_inverse_layer_idx": True},
        {"attention_types": [[["global", "local"], 2]]},
    ],
    ids=lambda rule: next(reversed(rule)),
)
def test_layers_of_kinds_told_by_their_number_cannot_move(rule: dict[str, Any]) -> None:
    configs = {name: {**CONFIG, **rule} for name in "abc"}
    message = f"slot 0 .layer 1 of `a`.: the layers of `a` cannot change places, .*\\(`{list(rule)[-1]}`: "
    with pytest.raises(RecipeError, match=message):
        build(slot("a", 1), slot("a", 0), slot("a", 2), configs=configs)
    with pytest.raises(RecipeError, match="cannot change places"):
        build(slot("a", 0), slot("a", 1), configs=configs)
    made, _ = build(slot("a", 0), slot("b", 1), slot("a", 2), configs=configs)
    assert_same(layer_of(made, 1), layer_of(WEIGHTS["b"], 1))


def test_rules_that_are_idle_or_replaced_by_a_list_let_layers_move() -> None:
    idle = {
        "max_window_layers": 1,
        "use_sliding_window": False,
        "decoder_sparse_step": 1,
        "num_kv_shared_layers": 0,
    }
    listed = {"max_window_layers": 1, "use_sliding_window": True, "layer_types": ["x", "y", "y"]}
    listed |= {"interleave_moe_layer_step": 2, "moe_layers": [1]}
    for rules in (idle, listed):
        build(slot("a", 1), slot("a", 0), configs={name: {**CONFIG, **rules} for name in "abc"})


def other_kind(seed: int, layer: int) -> Tensors:
    """Return a model one layer of which has another MLP."""
    made = tensors(seed)
    made[f"model.layers.{layer}.mlp.up_proj.weight"] = torch.zeros(5, 4)
    return made


def test_a_layer_of_another_kind_is_refused_unless_a_list_tells_kinds_apart() -> None:
    weights = {"a": other_kind(0, 1), "b": other_kind(1, 1)}
    message = (
        "slot 1 (layer 1 of `a`) does not fit the path: its `mlp.up_proj.weight` is [5, 4], "
        "but [4, 4] in layer 0 of `a`"
    )
    with pytest.raises(RecipeError, match=re.escape(message)):
        build(slot("a", 0), slot("a", 1), weights=weights)
    build(slot("a", 0), slot("b", 1), slot("a", 2), weights=weights)  # in place
    listed = {**CONFIG, "mlp_layer_types": ["dense", "wide", "dense"]}
    configs = dict.fromkeys("ab", listed)
    assert build(slot("a", 0), slot("b", 1), weights=weights, configs=configs)[1]["mlp_layer_types"] == [
        "dense",
        "wide",
    ]
    with pytest.raises(RecipeError, match=r"slot 0 .* cannot have the norms of layer 0, which is of another"):
        build(slot("a", 1, norms=0), weights=weights, configs=configs)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ([slot("a", 3)], "slot 0 of the path asks for layer 3 of `a`, whose last layer is 2"),
        ([slot("a", 0, norms=9)], "slot 0 of the path asks for layer 9 of `a`, whose last layer is 2"),
        ([slot("a", 0, weights=(("oproj", 0.5),))], "no tensor of the path has `oproj` in its name"),
        ([slot("a", 0, scale=1e-20), slot("a", 0, scale=1e-20)], "1e-40 at slot 1 (layer 0 of `a`)"),
    ],
)  # fmt: skip
def test_a_path_that_cannot_be_is_refused(path: list[Slot], message: str) -> None:
    with pytest.raises(RecipeError, match=re.escape(message)):
        build(*path)


@pytest.mark.parametrize(
    ("weights", "config", "message"),
    [
        (tensors(1, width=6), {}, "its hidden size is 6, but 4 in `a`"),
        (tensors(1), {"num_attention_heads": 4}, "its `num_attention_heads` is 4, but 2 in `a`"),
        (tensors(1), {"model_type": "qwen2"}, "its architecture is qwen2, but llama in `a`"),
        ({name.replace("layers", "h"): each for name, each in tensors(1).items()}, {}, "is model.h, but"),
        ({k: v for k, v in tensors(1).items() if "q_norm" not in k}, {}, "q_norm.weight` is missing"),
    ],
    ids=["width", "heads", "architecture", "names", "tensors"],
)  # fmt: skip
def test_models_that_do_not_fit_one_stack_are_refused(
    weights: Tensors, config: dict[str, Any], message: str
) -> None:
    configs = {"a": CONFIG, "b": {**CONFIG, **config}}
    with pytest.raises((RecipeError, CheckpointError), match=re.escape(message)):
        build(slot("a", 0), slot("b", 1), weights={"a": WEIGHTS["a"], "b": weights}, configs=configs)


ROPE = {"rope_theta": 10000.0}
YARN = {"type": "yarn", "factor": 2.0}


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (ROPE, {"rope_theta": 500000.0}),
        ({}, {"rope_theta": 500000.0}),
        (ROPE, {"rope_parameters": {"rope_theta": 5.0, "rope_type": "default"}}),
        (ROPE, {**ROPE, "rope_scaling": YARN}),
        (ROPE, {**ROPE, "partial_rotary_factor": 0.5}),
    ],
    ids=["theta", "default", "parameters", "scaling", "part"],
)
def test_layers_of_other_rotary_positions_are_refused(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    configs = {"a": {**CONFIG, **ours}, "b": {**CONFIG, **theirs}, "c": CONFIG}
    message = r"slot 2 \(layer 1 of `b`\) does not fit the path: its rotary embedding is .*, but .* in `a`"
    with pytest.raises(RecipeError, match=message):
        build(slot("a", 0), slot("a", 2), slot("b", 1), configs=configs)
    with pytest.raises(RecipeError, match=r"`b`, an end of the path, does not fit the path: its rotary"):
        build(slot("a", 0), ends=Ends(head="b"), configs=configs)


def test_a_model_that_sees_gives_no_layers() -> None:
    configs = {"a": CONFIG, "b": {**CONFIG, "text_config": CONFIG, "vision_config": {}}, "c": CONFIG}
    with pytest.raises(RecipeError, match="plain language models, and `b` also sees"):
        build(slot("a", 0), slot("b", 0), configs=configs)


def test_one_config_has_one_number_of_each() -> None:
    different = {
        "num_key_value_heads": (1, 2), "residual_multiplier": (0.5, 1.0), "alibi": (False, True),
        "scale_attn_weights": (True, False), "use_qk_norm": (True, False), "clip_qkv": (3.0, 8.0),
        "norm_topk_prob": (False, True), "routed_scaling_factor": (1.0, 2.5), "swiglu_limit": (7.0, 3.0),
    }  # fmt: skip
    for key, values in different.items():
        configs = {name: {**CONFIG, key: value} for name, value in zip("ab", values, strict=True)}
        weights = {name: WEIGHTS[name] for name in "ab"}
        message = (
            f"slot 1 (layer 0 of `b`) does not fit the path: its `{key}` is {values[1]}, but {values[0]} in"
        )
        with pytest.raises(RecipeError, match=re.escape(message)):
            build(slot("a", 0), slot("b", 0), weights=weights, configs=configs)


def test_the_same_rotary_positions_may_be_said_in_other_words() -> None:
    new = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "default"}}
    scaled = {"rope_parameters": {"rope_theta": 10000.0, "rope_type": "linear", "factor": 2.0}}
    for one, other in ((ROPE, new), ({}, new), ({"rope_scaling": {"type": "linear", "factor": 2.0}}, scaled)):
        configs = {"a": {**CONFIG, **one}, "b": {**CONFIG, **other}, "c": CONFIG}
        weights = {name: WEIGHTS[name] for name in "ab"}
        build(slot("a", 0), slot("b", 1), weights=weights, configs=configs)


def test_ends_of_other_vocabularies_are_refused() -> None:
    wider = {**tensors(1), HEAD: torch.zeros(9, 4)}
    with pytest.raises(
        RecipeError, match=r"embedding of `a` is \[4, 4\] and the output head of `b` \[9, 4\]"
    ):
        build(slot("a", 0), ends=Ends(head="b"), weights={"a": WEIGHTS["a"], "b": wider})


@pytest.mark.parametrize("gone", ["post_attention_layernorm", "input_layernorm", "mlp.up_proj"])
def test_scales_of_blocks_that_are_not_known_to_allow_it_are_refused(gone: str) -> None:
    weights = {"a": {name: each for name, each in WEIGHTS["a"].items() if gone not in name}}
    build(slot("a", 0), slot("a", 1), weights=weights)
    build(slot("a", 0, scale=2.0), slot("a", 1, scale=0.5), weights=WEIGHTS)
    with pytest.raises(
        RecipeError, match=r"the scale 2 of the stream cannot be folded into slot 1 \(layer 1 of `a`\)"
    ):
        build(slot("a", 0), slot("a", 1, scale=2.0), weights=weights)


def test_a_scale_is_refused_without_a_norm_to_take_it_away() -> None:
    weights = {"a": {name: each for name, each in WEIGHTS["a"].items() if name != NORM}}
    build(slot("a", 0), weights=weights)
    with pytest.raises(RecipeError, match=r"cannot be folded into slot 0 \(layer 0 of `a`\)"):
        build(slot("a", 0, scale=2.0), weights=weights)


def test_norms_that_lack_one_are_divided_with_it() -> None:
    """Gemma multiplies by one and the weights; https://arxiv.org/abs/2408.00118."""
    more = ("pre_feedforward_layernorm", "post_feedforward_layernorm")
    inside = [f"model.layers.{layer}.{name}.weight" for layer in range(DEPTH) for name in more]
    weights = {"a": WEIGHTS["a"] | {name: torch.full((4, 4), 0.25) for name in inside}}
    configs = {"a": {**CONFIG, "model_type": "gemma2"}}
    by = (("post_feedforward_layernorm", 2.0),)
    made, _ = build(slot("a", 0, scale=2.0), slot("a", 1, weights=by), weights=weights, configs=configs)
    for number, stored in ((0, 0.25), (1, 0.5)):
        found, source = layer_of(made, number), layer_of(weights["a"], number)
        expected = dict(source)
        expected["post_attention_layernorm.weight"] = (1 + source["post_attention_layernorm.weight"]) / 2 - 1
        expected["post_feedforward_layernorm.weight"] = torch.full((4, 4), (1 + stored) / 2 - 1)
        for name in expected:
            torch.testing.assert_close(found[name], expected[name], rtol=0.0, atol=1e-6)


def test_a_norm_behind_a_branch_is_no_block_to_fold() -> None:
    more = {
        f"model.layers.{layer}.post_feedforward_layernorm.weight": torch.ones(4, 4) for layer in range(DEPTH)
    }
    with pytest.raises(RecipeError, match="blocks of `llama` are not known"):
        build(slot("a", 0, scale=2.0), weights={"a": WEIGHTS["a"] | more})


def test_plain_tensors_have_no_tokens_to_match() -> None:
    merges = {"m": Merge(method="linear", sources=("a", "b"))}
    recipe = Recipe(models={name: ModelRef(source=name) for name in "ab"}, merges=merges, tokenizer="union")
    with pytest.raises(RecipeError, match="no tokenizers to match tokens by; leave out `tokenizer`"):
        build_tensors(recipe, WEIGHTS, dict.fromkeys("ab", CONFIG))
