"""Whether source models can be merged with one another: the same structure, shapes and words."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from evomerge.checkpoints.architecture import Architecture, is_vocabulary
from evomerge.checkpoints.folder import Checkpoint, read_json
from evomerge.checkpoints.headers import QUANTISED, TensorSpec
from evomerge.checkpoints.language import find_tower, language_config
from evomerge.errors import CheckpointError

_log = logging.getLogger(__name__)

_MEANING = (
    "num_attention_heads",
    "num_key_value_heads",
    "head_dim",
    "n_head",
    "num_heads",
    "multi_query",
    "hidden_act",
    "hidden_activation",
    "activation_function",
    "num_experts_per_tok",
    "num_local_experts",
    "n_routed_experts",
    "residual_multiplier",
    "attention_multiplier",
    "use_parallel_residual",
    "apply_residual_connection_post_layernorm",
    "alibi",
    "scale_attn_weights",
    "use_qk_norm",
    "clip_qkv",
    "norm_topk_prob",
    "routed_scaling_factor",
    "swiglu_limit",
)
"""Config keys without which tensors of the same shapes do not mean the same."""

LAYER_COUNTS = ("num_hidden_layers", "n_layer", "n_layers", "num_layers")
"""Config keys that count the layers; a config has one of them."""

_DETAILS = (
    "partial_rotary_factor",
    "sliding_window",
    "layer_types",
    "max_position_embeddings",
    "rms_norm_eps",
    "layer_norm_eps",
    "layer_norm_epsilon",
    "query_pre_attn_scalar",
    "attn_logit_softcapping",
    "final_logit_softcapping",
)
"""Config keys by which models that can be merged may still compute a little differently."""
_GLOBAL_DETAILS = tuple(key for key in _DETAILS if key != "layer_types")
"""Those of them that are not the layers' own."""

_MOST_TOKENS = 1 << 32
"""The tokenizers library counts in 32 bits."""

_BUFFERS = ("rotary_emb.inv_freq", ".attn.bias", ".masked_bias", ".attention.bias")
"""Endings of constants that older versions of transformers saved among the weights."""

_TOKENIZER_FILES = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model")


def check_compatible(models: Mapping[str, Checkpoint], *, by_token: bool = False) -> Architecture:
    """Return the structure of the first; the others share it. Raises `CheckpointError` for one that differs.

    With `by_token`, their tokens are matched and may differ; embeddings and heads may in any case have
    different numbers of rows. Of models that also see, the language towers are compared, and among one
    another also their kind.
    """
    for name, model in models.items():
        _check_not_quantised(name, model)
    first, whole = next(iter(models.items()))
    found = whole.structure
    parts = {name: language_part(model) for name, model in models.items()}
    for name, model in parts.items():
        check_layers(name, model)
    (first, reference), *others = parts.items()
    structure = reference.structure
    words = vocabulary(reference.home)
    for name, model in others:
        seeing = model is not models[name] or reference is not whole
        _check_same_eyes(first, whole, name, models[name])
        _check_structure(first, structure, name, model.structure, seeing=seeing)
        _check_meaning(first, reference.config, name, model.config)
        _note_details(first, reference.config, name, model.config)
        _check_rope(first, reference.config, name, model.config)
        if not by_token:
            _check_vocabulary(first, words, name, vocabulary(model.home), seeing=seeing)
        _check_shapes(first, reference, name, model, structure, seeing=seeing)
        _check_nothing_more(first, reference, name, model)
    return found


def language_part(checkpoint: Checkpoint) -> Checkpoint:
    """Return the checkpoint as if it held its language model only, under a plain LLM's names."""
    tower = find_tower(checkpoint.specs, checkpoint.config)
    if tower is None:
        return checkpoint
    inside = {name: plain for name in checkpoint.specs if (plain := tower.plain(name)) is not None}
    return replace(
        checkpoint,
        config=language_config(checkpoint.config),
        specs={plain: checkpoint.specs[name] for name, plain in inside.items()},
        files={plain: checkpoint.files[name] for name, plain in inside.items() if name in checkpoint.files},
    )


def check_stackable(models: Mapping[str, Checkpoint], *, by_token: bool = False) -> None:
    """Raise `CheckpointError` if layers of `models` cannot stand in one stack.

    Their numbers of layers may differ, and `by_token` their tokens. That the layers' tensors fit, and mean
    the same, is checked as a path is planned, where a slot can be named.
    """
    (first, reference), *others = models.items()
    for name, model in models.items():
        _check_not_quantised(name, model)
        check_layers(name, model)
    words = vocabulary(reference.home)
    for name, model in others:
        _note_details(first, reference.config, name, model.config, _GLOBAL_DETAILS)
        if not by_token:
            _check_vocabulary(first, words, name, vocabulary(model.home), seeing=False)


def is_weight(tensor: str, spec: TensorSpec) -> bool:
    """Return whether a tensor is learned: neither an integer nor one of the constants some files hold."""
    return spec.is_float and not tensor.endswith(_BUFFERS)


def has_tokenizer(path: Path) -> bool:
    """Return whether the folder holds a tokenizer."""
    return any((path / name).is_file() for name in _TOKENIZER_FILES)


def vocabulary(path: Path) -> Mapping[str, Any]:
    """Return the token table of the tokenizer in `path`, or its raw bytes where it is not JSON.

    Raises `CheckpointError` if there is no tokenizer.
    """
    for name in _TOKENIZER_FILES:
        file = path / name
        if not file.is_file():
            continue
        if name != "tokenizer.json":
            return {name: file.read_bytes()}
        try:
            content = read_json(file)
            table = content["model"]["vocab"]
            added = {entry["content"]: entry["id"] for entry in content.get("added_tokens", [])}
            pairs = table if isinstance(table, dict) else {entry[0]: i for i, entry in enumerate(table)}
        except (LookupError, TypeError, AttributeError) as error:
            raise CheckpointError(
                f"{file} is not a tokenizer: it has no table of tokens (`model.vocab`)"
            ) from error
        found = {**pairs, **added}
        if wrong := next((each for each in found.items() if not _is_token(*each)), None):
            raise CheckpointError(f"{file} is not a tokenizer: {wrong[0]!r} has the id {wrong[1]!r}")
        return found
    raise CheckpointError(f"{path} has no tokenizer (looked for {', '.join(_TOKENIZER_FILES)})")


def _is_token(token: object, number: object) -> bool:
    return isinstance(token, str) and type(number) is int and 0 <= number < _MOST_TOKENS


def _check_not_quantised(name: str, model: Checkpoint) -> None:
    if scheme := model.config.get("quantization_config"):
        kind = scheme.get("quant_method", "unknown") if isinstance(scheme, dict) else scheme
        raise CheckpointError(
            f"`{name}` is quantised (`quantization_config` in its config.json: {kind}), and such weights "
            "cannot be merged; use the model in bfloat16, float16 or float32"
        )
    for tensor, spec in model.specs.items():
        if spec.dtype in QUANTISED:
            raise CheckpointError(
                f"`{name}` is quantised (`{tensor}` is {spec.dtype}), and such weights cannot be merged; "
                "use the model in bfloat16, float16 or float32"
            )


def check_layers(name: str, model: Checkpoint) -> None:
    """Raise `CheckpointError` if the config counts other layers than the weights hold."""
    stated = next((model.config[key] for key in LAYER_COUNTS if key in model.config), None)
    found = model.structure.layers
    drafting = model.config.get("num_nextn_predict_layers") or 0  # layers behind the last, for speculation
    if stated is not None and stated not in (found, *([found - drafting] if type(drafting) is int else [])):
        raise CheckpointError(
            f"`{name}` has {found} layers, but its config.json says {stated}: one of the two is wrong"
        )


def _check_same_eyes(first: str, one: Checkpoint, name: str, other: Checkpoint) -> None:
    """Refuse two models of different kinds that see: the merge can look through one pair of eyes only."""
    if None in (find_tower(one.specs, one.config), find_tower(other.specs, other.config)):
        return
    ours, theirs = one.config["model_type"], other.config["model_type"]
    if ours != theirs:
        raise CheckpointError(
            f"`{name}` cannot be merged with `{first}`: it is a {theirs}, not a {ours}; of models that see, "
            "merge those of one kind, or a model of text alone"
        )
    _log.warning(
        "`%s` and `%s` both see: their language models are merged, all else is copied from the template",
        first, name,
    )  # fmt: skip


def _check_structure(first: str, one: Architecture, name: str, other: Architecture, *, seeing: bool) -> None:
    kin = seeing and _kin(one.model_type, other.model_type)
    for what, ours, theirs in (
        ("architecture", one.model_type, one.model_type if kin else other.model_type),
        ("number of layers", one.layers, other.layers),
        ("layer names", one.prefix, other.prefix),
    ):
        if ours != theirs:
            raise CheckpointError(
                f"`{name}` cannot be merged with `{first}`: the {what} differ ({theirs} against {ours})"
                if what == "layer names"
                else f"`{name}` cannot be merged with `{first}`: its {what} is {theirs}, not {ours}"
            )


def _kin(one: str, other: str) -> bool:
    """Return whether two names of architectures stand for one: `qwen2_5_vl_text` is a `qwen2` that sees."""
    shorter, longer = sorted((one.replace("_vl", ""), other.replace("_vl", "")), key=len)
    return longer.startswith(shorter)


def other_meaning(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Yield the config keys, with both values, by which tensors of the same shapes mean other things."""
    for key in _MEANING:
        if None not in (ours.get(key), theirs.get(key)) and ours[key] != theirs[key]:
            yield key, ours[key], theirs[key]


def _check_meaning(first: str, ours: Mapping[str, Any], name: str, theirs: Mapping[str, Any]) -> None:
    for key, mine, other in other_meaning(ours, theirs):
        raise CheckpointError(f"`{name}` cannot be merged with `{first}`: its `{key}` is {other}, not {mine}")


def _note_details(
    first: str, ours: Mapping[str, Any], name: str, theirs: Mapping[str, Any], keys: Iterable[str] = _DETAILS
) -> None:
    for key in keys:
        if None not in (ours.get(key), theirs.get(key)) and ours[key] != theirs[key]:
            _log.warning(
                "`%s` of `%s` is %s, of `%s` %s: a merge has that of its template",
                key, name, theirs[key], first, ours[key],
            )  # fmt: skip


def _check_rope(first: str, ours: Mapping[str, Any], name: str, theirs: Mapping[str, Any]) -> None:
    """Warn where positions are told otherwise; a base of rotation may also be left to the default."""
    mine, other = rope(ours), rope(theirs)
    for key in sorted(mine.keys() | other.keys()):
        given = mine.get(key), other.get(key)
        if given[0] != given[1] and (key != "rope_theta" or None not in given):
            _log.warning(
                "`%s` of `%s` is %s, of `%s` %s: a merge has that of its template",
                key, name, given[1], first, given[0],
            )  # fmt: skip


def rope(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a config says of rotary positions, in the words of any version of transformers."""
    said: dict[str, Any] = {"rope_theta": config.get("rope_theta")}
    for key in ("rope_scaling", "rope_parameters"):
        stated = config.get(key) or {}
        if not isinstance(stated, Mapping):
            raise CheckpointError(f"`{key}` in a model's config.json must be a table, found {stated!r}")
        said |= stated
    kind = said.pop("type", None)
    said.setdefault("rope_type", kind)
    usual = said["rope_type"] in (None, "default", "mrope")  # that it has sections is said by itself
    return {k: v for k, v in said.items() if v is not None and not (k == "rope_type" and usual)}


def _check_vocabulary(
    first: str, ours: Mapping[str, Any], name: str, theirs: Mapping[str, Any], *, seeing: bool
) -> None:
    if ours == theirs:
        return
    missing, extra = ours.keys() - theirs.keys(), theirs.keys() - ours.keys()
    shared = ours.keys() & theirs.keys()
    moved = sum(ours[token] != theirs[token] for token in shared)
    if seeing and shared and not moved:
        return  # a model that sees has words for images; their rows are its own (`rows.py`)
    raise CheckpointError(
        f"`{name}` cannot be merged with `{first}`: the vocabularies differ ({len(missing)} tokens missing, "
        f"{len(extra)} extra, {moved} with another id); use models that share one tokenizer, or match their "
        "tokens with `tokenizer: base`, `union` or a model's name"
    )


def _check_shapes(
    first: str, one: Checkpoint, name: str, other: Checkpoint, structure: Architecture, *, seeing: bool
) -> None:
    by_word = (structure.embedding, structure.head) if seeing else ()
    for tensor, spec in one.specs.items():
        found = other.specs.get(tensor)
        if found is None:
            if tensor != structure.head and is_weight(tensor, spec):
                raise CheckpointError(f"`{name}` cannot be merged with `{first}`: it has no `{tensor}`")
        elif found.is_float != spec.is_float:
            raise CheckpointError(
                f"`{name}` cannot be merged with `{first}`: `{tensor}` is {found.dtype} there "
                f"and {spec.dtype} here"
            )
        elif found.shape != spec.shape and not (
            _padded(tensor, one, other, structure) or (tensor in by_word and _same_but_for_rows(spec, found))
        ):
            raise CheckpointError(
                f"`{name}` cannot be merged with `{first}`: `{tensor}` is {list(found.shape)}, "
                f"not {list(spec.shape)}"
            )


def _padded(tensor: str, one: Checkpoint, other: Checkpoint, structure: Architecture) -> bool:
    """Return whether the shapes of `tensor` differ as the models' numbers of embedding rows do."""
    ours, theirs = one.specs[tensor].shape, other.specs[tensor].shape
    rows = [model.specs[structure.embedding].shape[:1] for model in (one, other)]
    return is_vocabulary(tensor) and ours[1:] == theirs[1:] and [ours[:1], theirs[:1]] == rows


def _same_but_for_rows(one: TensorSpec, other: TensorSpec) -> bool:
    return one.shape[1:] == other.shape[1:]


def _check_nothing_more(first: str, one: Checkpoint, name: str, other: Checkpoint) -> None:
    """Refuse a tensor that the merge would drop in silence; an output head of its own is kept."""
    head = other.structure.head
    for tensor, spec in other.specs.items():
        if tensor not in one.specs and tensor != head and is_weight(tensor, spec):
            raise CheckpointError(f"`{name}` cannot be merged with `{first}`: it alone has `{tensor}`")
