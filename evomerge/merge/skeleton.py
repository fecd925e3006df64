"""A live model without tensors of its own: each plan of its form puts in its own."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from evomerge.checkpoints.dtypes import DTYPES
from evomerge.checkpoints.headers import TensorSpec
from evomerge.checkpoints.language import find_tower
from evomerge.merge.execute import Execution
from evomerge.merge.plan import Apply, Output, Plan, one_tensor

Form: TypeAlias = tuple[dict[str, Any], dict[str, TensorSpec]]
"""What plans for one model have in common: the config, and the tensors' names, shapes and dtypes."""

_ORIGIN = ("_name_or_path", "architectures", "transformers_version")
"""Keys of a config that say where a model comes from."""


def form_of(plan: Plan) -> Form:
    """Return what the plan asks of the model that it is carried out in."""
    config = {key: value for key, value in plan.config.items() if key not in _ORIGIN}
    return config, {output.name: output.spec for output in plan.outputs}


@dataclass(frozen=True, kw_only=True)
class Merged:
    """A tensor in a live model, and what decided its values if that is known."""

    how: object
    value: Tensor


class Skeleton:
    """A model of one form, and its live tensors by the names of a plan's outputs.

    A tensor that is in it is replaced, not written to: slots of a path that hold the same share one storage
    (each in a module of its own, which a cache needs), and a copy may be the mapped source. Written over are
    only tensors that were merged for it, by the next plan that merges the same; one that is merged just as
    before stays as it is.
    """

    def __init__(self, model: Any, form: Form, targets: Mapping[str, Tensor]) -> None:
        self.model = model
        self.form = form
        self._targets = targets
        self._merged: dict[str, Merged] = {}

    def fill(self, execution: Execution) -> None:
        """Put in the tensors of a plan, those before it let go first: two candidates need never fit."""
        wanted = [output for output in execution.plan.outputs if output.name in self._targets]
        self._release({output.name for output in wanted if self._is_own(output)})
        with torch.no_grad():
            for outputs in one_tensor(wanted):
                names = [output.name for output in outputs]
                if self._is_own(outputs[0]):
                    self._merge(execution, outputs[0])
                else:
                    self._put(execution.produce(outputs[0], lend=True), names)

    def release(self) -> None:
        """Let go of the tensors."""
        self._release(set())

    def _release(self, kept: set[str]) -> None:
        """Let go of all but those that are to be written over."""
        self._merged = {name: merged for name, merged in self._merged.items() if name in kept}
        for name, tensor in self._targets.items():
            if name not in self._merged:
                tensor.data = stand_in(tensor.shape, tensor.dtype)

    def _is_own(self, output: Output) -> bool:
        """Return whether the tensor is merged for this one place, in the dtype that the model has there."""
        target = self._targets[output.name]
        return isinstance(output.operation, Apply) and target.dtype == DTYPES[output.spec.dtype]

    def _merge(self, execution: Execution, output: Output) -> None:
        before = self._merged.pop(output.name, None)  # half written over if it fails
        how = execution.decided_by(output)
        if before is not None and how is not None and before.how == how:
            self._merged[output.name] = before
            return
        value = execution.produce(output, into=before.value if before else None).contiguous()
        self._merged[output.name] = Merged(how=how, value=value)
        self._targets[output.name].data = value

    def _put(self, value: Tensor, names: list[str]) -> None:
        value = value.contiguous()  # as it would be in a file: sums may depend on it
        cast: dict[torch.dtype, Tensor] = {}
        for name in names:
            dtype = self._targets[name].dtype  # some families keep some tensors in float32
            self._targets[name].data = cast.setdefault(dtype, value.to(dtype))


def stand_ins(plan: Plan) -> dict[str, Tensor]:
    """Return tensors of the plan's names, shapes and dtypes that take no memory."""
    return {output.name: stand_in(output.spec.shape, DTYPES[output.spec.dtype]) for output in plan.outputs}


def stand_in(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Return a tensor that repeats one number."""
    number = math.nan if dtype.is_floating_point else 0  # NaN: equal weights may be tied on loading
    return torch.full((), number, dtype=dtype).expand(shape)


def live_tensors(model: nn.Module, plan: Plan) -> dict[str, Tensor] | None:
    """Return the live tensor for each output of the plan, or None if the model stores others."""
    prefix = f"{getattr(model, 'base_model_prefix', '')}."
    shapes = {output.name: output.spec.shape for output in plan.outputs}
    stored = dict(_stored(model))
    live, disk = (find_tower(names, plan.config) for names in (stored, shapes))
    targets: dict[str, Tensor] = {}
    for name, tensor in stored.items():
        found = name if name in shapes else name.removeprefix(prefix)
        if live and disk and (plain := live.plain(name)):
            found = disk.own(plain)
        if found not in shapes or tensor.shape != shapes[found]:
            return None
        targets[found] = tensor
    return targets


def _stored(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Yield the parameters and buffers that a checkpoint of `model` holds, tied ones once."""
    yield from model.named_parameters()
    saved = model.state_dict().keys()
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in saved)
