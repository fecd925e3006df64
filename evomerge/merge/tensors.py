"""Merging plain dicts of tensors: the public call for people who bring their own weights."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from evomerge import plugins
from evomerge.checkpoints.architecture import is_vocabulary
from evomerge.checkpoints.embeddings import common_submatrix
from evomerge.checkpoints.folder import Checkpoint
from evomerge.checkpoints.tensors import DictSource, Library, TensorSource
from evomerge.errors import MergeError, RecipeError
from evomerge.merge.execute import Execution
from evomerge.merge.method import Informed, MergeMethod, taken
from evomerge.merge.plan import Apply, Copy, Operand, Operation, Output, Plan
from evomerge.merge.planning import compile_plan
from evomerge.merge.soup import Soup, greedy
from evomerge.parameters import bind
from evomerge.recipe import Recipe

_BASE = "base"
_log = logging.getLogger(__name__)


def merge_tensors(
    method: str,
    base: Mapping[str, Tensor] | None,
    models: Sequence[Mapping[str, Tensor]],
    params: Mapping[str, Any],
    *,
    seed: int = 0,
    compat: str = "evomerge",
    statistics: Sequence[Mapping[str, Tensor]] | None = None,
    inputs_first: bool = False,
    keep_masks: Sequence[Mapping[str, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Return the merged tensors by name, in the base's (or first model's) shapes and dtypes.

    `params` are the method's parameters by name; one per source may be a sequence as long as `models`.
    All tensors together count as one model where the method looks at the whole model. A tensor that is not
    a float in every model, or not in every model, is copied from the base (or first model), the latter
    with a warning.

    `statistics`, one dict per model by tensor name, are what methods like `fisher` (diagonal Fisher
    information, shaped as the tensor) and `regmean` (Gram matrix of a weight's inputs, `(in, in)`) merge by;
    `inputs_first` says that two-dimensional weights are stored `(in, out)`. `keep_masks`, one dict per
    model (1 = kept), replace random draws.

    With `compat="mergekit"`, embeddings and heads of different sizes are cut to their common part by
    methods of weights (`linear`, `slerp`), as mergekit does where nothing is said of tokenizers.

    Raises `MergeError` for a shape mismatch, a NaN or infinite input, or parameters the method rejects.
    """
    kind = plugins.load("methods", method)
    _check(method, kind, base, len(models))
    if compat == "mergekit" and kind.on == "weights":
        base, models = _cut(base, models)
    merging = _Merging(
        method=bind(kind, params, len(models), compat=compat),
        base=DictSource(base) if base is not None else None,
        models={f"model{i}": DictSource(model) for i, model in enumerate(models)},
        measured=_measured(method, statistics, len(models)),
        inputs_first=inputs_first,
    )
    outputs = tuple(
        Output(name=name, spec=spec, operation=merging.operation(name))
        for name, spec in merging.everything[merging.template].specs.items()
    )
    plan = Plan(outputs=outputs, config={}, template=merging.template, seed=seed)
    masks = _masks(plan, keep_masks, len(models)) if keep_masks is not None else None
    library = Library({**merging.everything, **merging.measured})
    execution = Execution(plan, library, keep_masks=masks)
    return {output.name: execution.produce(output) for output in outputs}


@dataclass(frozen=True, kw_only=True)
class _Merging:
    """A method bound to plain tensors: a base, models by name, and what was measured on each of these."""

    method: MergeMethod
    base: TensorSource | None
    models: Mapping[str, TensorSource]
    measured: Mapping[str, TensorSource]
    inputs_first: bool

    @property
    def template(self) -> str:
        """What gives names, shapes and dtypes."""
        return _BASE if self.base is not None else next(iter(self.models))

    @property
    def everything(self) -> dict[str, TensorSource]:
        """The base, if there is one, and the models."""
        return {**({_BASE: self.base} if self.base is not None else {}), **self.models}

    def operation(self, name: str) -> Operation:
        """Return how the tensor `name` is made. Raises `MergeError` for a shape mismatch."""
        home = Operand(model=self.template, tensor=name)
        everything = self.everything
        missing = [model for model, source in everything.items() if name not in source.specs]
        if missing:
            _log.warning("`%s` is not in %s: copied from %s", name, ", ".join(missing), self.template)
            return Copy(operand=home)
        _check_shapes(name, everything, self.template)
        if not all(source.specs[name].is_float for source in everything.values()):
            return Copy(operand=home)
        return Apply(
            method=self.method,
            base=home if self.base is not None and self.method.base != "unused" else None,
            operands=tuple(Operand(model=model, tensor=name) for model in self.models),
            statistics=tuple(
                Operand(model=source, tensor=name) if name in known.specs else None
                for source, known in self.measured.items()
            ),
            inputs_first=self.inputs_first,
        )


def greedy_soup(
    models: Mapping[str, Mapping[str, Tensor]], score: Callable[[dict[str, Tensor]], float]
) -> tuple[dict[str, Tensor], Soup]:
    """Return the greedy soup of `models` under `score` (higher is better), and what it is made of.

    The average is made once more from its ingredients, so that no rounding adds up. Raises `ValueError` if
    no model has a score other than NaN.
    """

    def average(names: Sequence[str]) -> dict[str, Tensor]:
        return merge_tensors("linear", None, [models[name] for name in names], {})

    tasting = greedy({name: score(average([name])) for name in models})
    answer: float | None = None
    while True:
        try:
            names = tasting.send(answer)
        except StopIteration as done:
            soup: Soup = done.value
            return average(soup.ingredients), soup
        answer = score(average(names))


def _measured(
    method: str, statistics: Sequence[Mapping[str, Tensor]] | None, count: int
) -> dict[str, TensorSource]:
    """Return what was measured on each model, in their order. Raises `MergeError` if it is not as needed."""
    kind = plugins.load("methods", method)
    if not isinstance(kind, Informed):
        if statistics is not None:
            raise MergeError(f"`{method}` merges without `statistics`, found {len(statistics)}")
        return {}
    given = statistics or ()
    if len(given) != count:
        raise MergeError(
            f"`{method}` needs `statistics` ({kind.statistic}) of {count} models, found {len(given)}"
        )
    return {f"model{i} {kind.statistic}": DictSource(each) for i, each in enumerate(given)}


_Tensors = Mapping[str, Tensor]


def _cut(base: _Tensors | None, models: Sequence[_Tensors]) -> tuple[_Tensors | None, list[_Tensors]]:
    """Return the tensors, embeddings and heads cut to the rows and columns that every model has."""
    everything = [dict(model) for model in models]
    everything += [dict(base)] if base is not None else []
    for name in filter(is_vocabulary, list(everything[-1])):
        having = [model for model in everything if name in model]
        shapes = sorted({tuple(model[name].shape) for model in having})
        if len(shapes) > 1 and {len(shape) for shape in shapes} == {2}:
            _log.warning("`%s` is of different sizes %s: cut to the common part", name, shapes)
            cut = common_submatrix([model[name] for model in having])
            for model, tensor in zip(having, cut, strict=True):
                model[name] = tensor
    count = len(models)
    return everything[count] if base is not None else None, list(everything[:count])


def _check(method: str, kind: Any, base: object, count: int) -> None:
    if allowed := taken(kind, count):
        raise MergeError(f"`{method}` takes {allowed} model(s), found {count}")
    if kind.base == "needed" and base is None:
        raise MergeError(f"`{method}` needs a base, found None")


def _check_shapes(name: str, models: Mapping[str, TensorSource], template: str) -> None:
    want = models[template].specs[name].shape
    for model, source in models.items():
        found = source.specs[name].shape
        if found != want:
            raise MergeError(f"`{name}` of {model} is {list(found)}, not {list(want)}")


def _masks(
    plan: Plan, keep_masks: Sequence[Mapping[str, Tensor]], count: int
) -> dict[str, tuple[Tensor, ...]]:
    """Return the masks of each merged tensor. Raises `MergeError` for one that does not fit."""
    if len(keep_masks) != count:
        raise MergeError(f"`keep_masks` needs one dict per model ({count}), found {len(keep_masks)}")
    merged = [output for output in plan.outputs if isinstance(output.operation, Apply)]
    for output in merged:
        for i, masks in enumerate(keep_masks):
            found = list(masks[output.name].shape) if output.name in masks else "nothing"
            if found != list(output.spec.shape):
                raise MergeError(
                    f"the mask of `{output.name}` in model{i} is {found}, not {list(output.spec.shape)}"
                )
    return {output.name: tuple(masks[output.name] for masks in keep_masks) for output in merged}


def build_tensors(
    recipe: Recipe,
    weights: Mapping[str, Mapping[str, Tensor]],
    configs: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the tensors and the config of what `recipe` builds from plain state dicts.

    `weights` and `configs` (as in config.json) are by the recipe's model names. Raises `RecipeError` or
    `CheckpointError` for what cannot be built, `MergeError` for tensors that cannot be merged.
    """
    if recipe.tokenizer is not None:
        raise RecipeError("plain tensors have no tokenizers to match tokens by; leave out `tokenizer`")
    sources = {name: DictSource(weights[name]) for name in recipe.used}
    checkpoints = {
        name: Checkpoint(path=Path(), config=configs[name], specs=source.specs, files={})
        for name, source in sources.items()
    }
    plan = compile_plan(recipe, checkpoints)
    execution = Execution(plan, Library(sources))
    return {output.name: execution.produce(output) for output in plan.outputs}, dict(plan.config)
