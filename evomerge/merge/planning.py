"""From a recipe and checkpoint headers to a plan: of one merge, or of a path through several.

Reads headers only. `one_merge.py` plans a merge, `path.py` says which of its tensors a path takes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.language import TOWERS, is_multimodal
from evomerge.checkpoints.tied import is_copied, read_structure
from evomerge.checkpoints.tokenizer import TokenizerFiles
from evomerge.checkpoints.vocabulary import Vocabulary, with_special
from evomerge.errors import RecipeError, unknown
from evomerge.merge.depth import check_layers, config_along
from evomerge.merge.one_merge import Part, plan_merge
from evomerge.merge.path import Member, Route, is_tied, route
from evomerge.merge.plan import Copy, Operand, Output, Plan, routed
from evomerge.recipe import Recipe

_SIZES = ("vocab_size", "vocab_size_per_layer_input")
DTYPE_CODES = {"float32": "F32", "bfloat16": "BF16", "float16": "F16"}


def compile_plan(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> Plan:
    """Return the plan that builds `recipe` from `checkpoints` (by the recipe's model names).

    Raises `RecipeError` for a recipe the method cannot carry out.
    """
    code = _code(recipe.dtype)
    _check_plain(recipe, checkpoints)
    merges: dict[str, Part] = {}
    for name in recipe.in_order:
        merges[name] = plan_merge(recipe, name, checkpoints, merges, code)
    if recipe.path is not None:
        return _stack(recipe, checkpoints, merges, code)
    part = merges.pop(recipe.embed_from)
    return _plan(recipe, part, merges, outputs=part.outputs, config=part.config, tied=part.tied)


def _plan(
    recipe: Recipe,
    part: Part,
    merges: Mapping[str, Part],
    *,
    outputs: tuple[Output, ...],
    config: Mapping[str, Any],
    tied: bool,
) -> Plan:
    """Return the plan of `outputs`, made of `merges`, in the words of `part`."""
    vocabulary = part.vocabulary
    return Plan(
        outputs=outputs,
        config=_edited(config, recipe.dtype, tied=tied, vocabulary=vocabulary),
        template=part.template,
        seed=recipe.seed,
        tokenizer=vocabulary.tokenizer if vocabulary else TokenizerFiles(folder=part.home),
        special=vocabulary.special if vocabulary else None,
        parts={name: merge.made for name, merge in merges.items()},
    )


def _check_plain(recipe: Recipe, checkpoints: Mapping[str, Checkpoint]) -> None:
    """Refuse models that see in a path and among merges of merges."""
    for name in recipe.used if recipe.path is not None or len(recipe.merges) > 1 else ():
        if is_multimodal(checkpoints[name].config):
            what = (
                "a path takes its layers from" if recipe.path is not None else "merges of merges are made of"
            )
            raise RecipeError(f"{what} plain language models, and `{name}` also sees")


def _alone(name: str, model: Checkpoint) -> Part:
    """Return a source as it is; of a tied one no copy of the embedding as head."""
    structure = read_structure(model)
    outputs = tuple(
        Output(name=tensor, spec=spec, operation=Copy(operand=Operand(model=name, tensor=tensor)))
        for tensor, spec in model.specs.items()
        if not is_copied(tensor, structure)
    )
    return Part(template=name, outputs=outputs, config=model.config, home=model.home, tied=structure.tied)


def _stack(
    recipe: Recipe, checkpoints: Mapping[str, Checkpoint], merges: Mapping[str, Part], code: str | None
) -> Plan:
    """Return the plan of a path: each tensor is one of a model or merge, under the name of its slot."""
    path = recipe.path or ()
    parts = {
        name: merges[name] if name in merges else _alone(name, checkpoints[name]) for name in recipe.parts
    }
    members = {
        name: Member(name=name, config=part.config, specs={each.name: each.spec for each in part.outputs})
        for name, part in parts.items()
    }
    check_layers(recipe.embed_from, path, members)
    routes = route(recipe, members)
    return _plan(
        recipe,
        parts[recipe.embed_from],
        merges,
        outputs=tuple(_routed(each, parts[each.part].made[each.tensor], code) for each in routes),
        config=config_along(recipe.embed_from, path, members),
        tied=is_tied(recipe, members),
    )


def _routed(route: Route, part: Output, code: str | None) -> Output:
    spec = replace(route.spec, dtype=code) if code and route.spec.is_float else route.spec
    operation = routed(route.part, part, route.factor, route.offset)
    return Output(name=route.name, spec=spec, operation=operation)


def _code(dtype: str | None) -> str | None:
    if dtype is not None and dtype not in DTYPE_CODES:
        raise RecipeError(unknown("dtype of a merged model", dtype, DTYPE_CODES))
    return DTYPE_CODES[dtype] if dtype else None


def _edited(
    config: Mapping[str, Any], dtype: str | None, *, tied: bool, vocabulary: Vocabulary | None
) -> dict[str, Any]:
    """Return the config of the merged model: its dtype, its words, and whether the head is the embedding.

    A model that sees may say dtype and head again of its towers.
    """
    edited = {**config, "tie_word_embeddings": tied}
    changed = config.get("tie_word_embeddings") is not tied
    if dtype is not None:
        edited.pop("torch_dtype", None)
        edited["dtype"] = dtype
    for key, part in config.items():
        if key in TOWERS and isinstance(part, Mapping):
            again: dict[str, Any] = {
                said: dtype for said in ("dtype", "torch_dtype") if dtype is not None and said in part
            }
            if "tie_word_embeddings" in part or (key == "text_config" and changed):
                again["tie_word_embeddings"] = tied
            edited[key] = {**part, **again}
    if vocabulary is not None:
        edited |= {key: vocabulary.length for key in _SIZES if key in edited}
    if vocabulary is not None and vocabulary.special is not None:
        edited = with_special(edited, vocabulary.special)
    return edited
