"""Merging plain dicts of tensors: the public call for people who bring their own weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from evomerge import plugins
from evomerge.checkpoints.tensors import DictSource, Library, TensorSource
from evomerge.errors import MergeError
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Apply, Copy, Operand, Operation, Output, Plan
from evomerge.parameters import bind

_BASE = "base"


def merge_tensors(
    method: str,
    base: Mapping[str, Tensor] | None,
    models: Sequence[Mapping[str, Tensor]],
    params: Mapping[str, Any],
    *,
    seed: int = 0,
    compat: str = "evomerge",
    keep_masks: Sequence[Mapping[str, Tensor]] | None = None,
) -> dict[str, Tensor]:
    """Return the merged tensors by name, in the base's (or first model's) shapes and dtypes.

    `params` are the method's parameters by name; one per source may be a sequence as long as `models`.
    All tensors together count as one model where the method looks at the whole model. `keep_masks`,
    one dict per model (1 = kept), replace random draws. Tensors that are not floats are copied.

    Raises `MergeError` for a shape mismatch, a NaN or infinite input, or parameters the method rejects.
    """
    sources: dict[str, TensorSource] = {f"model{i}": DictSource(model) for i, model in enumerate(models)}
    everything = {**({_BASE: DictSource(base)} if base is not None else {}), **sources}
    kind = plugins.load("methods", method)
    _check(method, kind, base, len(models))
    bound = bind(kind, params, len(models), compat=compat)
    template = _BASE if base is not None else "model0"

    def operation(name: str) -> Operation:
        home = Operand(model=template, tensor=name)
        if not everything[template].specs[name].is_float:
            return Copy(operand=home)
        _check_shapes(name, everything, template)
        operands = tuple(Operand(model=source, tensor=name) for source in sources)
        return Apply(method=bound, base=home if kind.base == "needed" else None, operands=operands)

    outputs = tuple(
        Output(name=name, spec=spec, operation=operation(name))
        for name, spec in everything[template].specs.items()
    )
    plan = Plan(outputs=outputs, config={}, template=template, seed=seed)
    masks = {output.name: tuple(mask[output.name] for mask in keep_masks or ()) for output in outputs}
    execution = Execution(plan, Library(everything), keep_masks=masks if keep_masks else None)
    return {output.name: execution.produce(output) for output in outputs}


def _check(method: str, kind: Any, base: object, count: int) -> None:
    least, most = kind.sources
    if count < least or (most is not None and count > most):
        raise MergeError(f"`{method}` takes {least} to {most or 'any number of'} models, found {count}")
    if kind.base == "needed" and base is None:
        raise MergeError(f"`{method}` needs a base, found None")


def _check_shapes(name: str, models: Mapping[str, TensorSource], template: str) -> None:
    want = models[template].specs[name].shape
    for model, source in models.items():
        found = source.specs.get(name)
        if found is None or found.shape != want:
            shape = list(found.shape) if found else "nothing"
            raise MergeError(f"`{name}` of {model} is {shape}, not {list(want)}")
