"""The step both executors share: make one output tensor of a plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from evomerge.checkpoints.dtypes import DTYPES
from evomerge.checkpoints.tensors import Library
from evomerge.errors import MergeError
from evomerge.merge.method import Site, Surveying
from evomerge.merge.plan import Apply, Copy, Operand, Output, Plan

KeepMasks = dict[str, tuple[Tensor, ...]]
"""By tensor name, one mask per source that replaces the random draws; for reproducing published numbers."""


class Execution:
    """A plan being carried out: makes each output from the library's tensors, on one device."""

    def __init__(
        self,
        plan: Plan,
        library: Library,
        *,
        device: torch.device | None = None,
        keep_masks: KeepMasks | None = None,
    ) -> None:
        self.plan = plan
        self._library = library
        self._device = device
        self._keep_masks = keep_masks or {}
        self._survey = self._look_ahead()

    def produce(self, output: Output) -> Tensor:
        """Return the output tensor in its dtype. Raises `MergeError` if a value is not finite."""
        if isinstance(output.operation, Copy):
            return self._copy(output, output.operation)
        base, operands = self._operands(output.operation)
        merged = output.operation.method.merge(base, operands, self._site(output))
        result = merged.to(DTYPES[output.spec.dtype])
        if not bool(result.isfinite().all()):
            raise MergeError(f"merging `{output.name}` gave values that {output.spec.dtype} cannot hold")
        return result

    def _copy(self, output: Output, operation: Copy) -> Tensor:
        raw = self._library.raw(operation.operand.model, operation.operand.tensor)
        # a copy even where nothing changes: what is made here may be written to, mapped sources may not
        return raw.to(device=self._device, dtype=DTYPES[output.spec.dtype], copy=True)

    def _operands(self, operation: Apply) -> tuple[Tensor | None, Tensor]:
        """Return the base `(*s)` and the operands `(n, *s)` that the method works on, in float32."""
        base = None
        if operation.base is not None:
            base = self._library.float32(operation.base.model, operation.base.tensor, self._device)
        first, *rest = (self._operand(operation, each, base) for each in operation.operands)
        operands = torch.empty((1 + len(rest), *first.shape), dtype=torch.float32, device=first.device)
        for i, tensor in enumerate((first, *rest)):
            operands[i] = tensor
        return base, operands

    def _operand(self, operation: Apply, operand: Operand, base: Tensor | None) -> Tensor:
        """Return the operand, or its task vector where the method works on those."""
        if operation.method.on == "deltas" and base is not None:
            assert operation.base is not None
            home, name = operation.base, operand.tensor
            if name == home.tensor:  # a tied base's head is its embedding, and an adapter may untie it
                exact = self._library.adapter_delta(operand.model, home.model, name, self._device)
                if exact is not None:
                    return exact
            return self._library.float32(operand.model, name, self._device) - base
        return self._library.float32(operand.model, operand.tensor, self._device)

    def _site(self, output: Output) -> Site:
        assert isinstance(output.operation, Apply)
        return Site(
            tensor=output.name,
            sources=tuple(operand.model for operand in output.operation.operands),
            seed=self.plan.seed,
            survey=self._survey,
            keep_masks=self._keep_masks.get(output.name),
        )

    def _look_ahead(self) -> Any:
        """Return the survey of the outputs that need one, or None."""
        surveyed = self.plan.surveyed
        if not surveyed:
            return None

        def stream() -> Iterator[tuple[str, Tensor]]:
            for output in surveyed:
                assert isinstance(output.operation, Apply)
                yield output.name, self._operands(output.operation)[1]

        first = surveyed[0].operation
        assert isinstance(first, Apply)
        assert isinstance(first.method, Surveying)
        return first.method.survey(stream)
