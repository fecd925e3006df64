"""The step both executors share: make one output tensor of a plan."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from evomerge.checkpoints.architecture import is_embedding
from evomerge.checkpoints.dtypes import DTYPES, all_finite
from evomerge.checkpoints.embeddings import gather
from evomerge.checkpoints.tensors import Library
from evomerge.errors import MergeError
from evomerge.merge.compiling import Loops
from evomerge.merge.method import MergeMethod, Site, Surveying, View, looping, streaming
from evomerge.merge.plan import Apply, Copy, Operand, Output, Plan, Routed, SharedRows, survey_key, surveyed
from evomerge.merge.streaming import Known, Operands, Orders, Stored, merge_stored

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
        orders: Orders | None = None,
        loops: Loops | None = None,
    ) -> None:
        self.plan = plan
        self._library = library
        self._device = device
        self._orders = orders
        self._loops = loops
        self._keep_masks = keep_masks or {}
        self._surveys: dict[str | None, Any] = {}
        for name, part in plan.parts.items():  # each after those it reads, so that what they saw is known
            self._surveys[name] = self._look_ahead(surveyed(part.values()))
        self._surveys[None] = self._look_ahead(plan.surveyed)

    def produce(self, output: Output, *, lend: bool = False, into: Tensor | None = None) -> Tensor:
        """Return the output tensor in its dtype. Raises `MergeError` if a value is not finite.

        With `lend` it may be a source's own, which must not be written to. It may be written over `into`, a
        contiguous tensor of its shape, dtype and device.
        """
        if isinstance(output.operation, Copy):
            return self._copy(output, output.operation, lend=lend)
        if (streamed := self._streamed(output, output.operation, into)) is not None:
            return streamed
        result = self._computed(output, None).to(DTYPES[output.spec.dtype])
        if isinstance(output.operation, Apply) and output.operation.rows is not None:
            result = self._among_own(result, output, output.operation.rows)
        if not all_finite(result):
            raise _not_finite(output)
        return result

    def decided_by(self, output: Output) -> object:
        """Return what decides the values of a merged tensor, equal if these are; None if it is not known.

        It is not where other tensors matter too: in merges of merges, and where a whole model is surveyed.
        """
        operation = output.operation
        if not isinstance(operation, Apply) or survey_key(operation) is not None or self._keep_masks:
            return None
        every = (operation.base, *operation.operands)
        if operation.rows or any(each and (each.rows or each.model in self.plan.parts) for each in every):
            return None
        return output, self.plan.seed

    def _streamed(self, output: Output, operation: Apply | Routed, into: Tensor | None) -> Tensor | None:
        """Return the output merged block by block, None where its method or its operands need it whole."""
        if not isinstance(operation, Apply) or (streams := streaming(operation.method)) is None:
            return None
        if (operands := self._stored(operation)) is None:
            return None
        deltas = operation.method.on == "deltas" and operation.base is not None
        names = tuple((deltas and operation.base, operand) for operand in operation.operands)
        known = Known(operands=operands, names=names, orders=self._orders, deltas=deltas, loops=self._loops)
        site = self._site(output, operation, survey=self._surveys.get(None))
        dtype = DTYPES[output.spec.dtype]
        made = torch.empty(output.spec.shape, dtype=dtype, device=operands.device) if into is None else into
        finite = self._looped(operation.method, site, known, made)
        if finite is None:
            if (merge := streams.begin(site, known)) is None:
                return None
            finite = merge_stored(merge, operands, made, deltas=deltas)
        if not finite:
            raise _not_finite(output)
        return made

    def _looped(self, method: MergeMethod, site: Site, known: Known, made: Tensor) -> bool | None:
        """Merge by a compiled loop into `made` and return whether all is finite; None where there is none."""
        operands = known.operands
        if self._loops is None or not self._loops.suits(made) or any(each.delta for each in operands.stored):
            return None
        if (loops := looping(method)) is None or (loop := loops.loop(site, known)) is None:
            return None
        return self._loops.run(loop, operands.base, [each.tensor for each in operands.stored], made)

    def _stored(self, operation: Apply) -> Operands | None:
        """Return the operands as they are stored, None if one has to be put together from others first."""
        every = [*operation.operands, *([operation.base] if operation.base else [])]
        if operation.rows or any(each.rows or each.model in self.plan.parts for each in every):
            return None
        base = None if operation.base is None else self._flat(operation.base)
        return Operands(
            base=base, stored=tuple(self._operand(each, operation) for each in operation.operands)
        )

    def _operand(self, operand: Operand, operation: Apply) -> Stored:
        if operation.method.on == "deltas" and (exact := self._adapter_delta(operation, operand)) is not None:
            return Stored(tensor=exact.reshape(-1), delta=True)
        return Stored(tensor=self._flat(operand))

    def _flat(self, operand: Operand) -> Tensor:
        return self._library.stored(operand.model, operand.tensor, self._device).reshape(-1)

    def _computed(self, output: Output, merge: str | None) -> Tensor:
        """Return a tensor of the output (None) or of a merge in it, in float32; do not write to it."""
        operation = output.operation
        if isinstance(operation, Routed):
            scaled = self._computed(operation.part, operation.merge) * operation.factor
            return scaled + operation.offset if operation.offset else scaled
        if isinstance(operation, Copy):
            return self._matched(operation.operand)
        base, operands = self._operands(operation)
        site = self._site(output, operation, survey=self._surveys.get(merge))
        return operation.method.merge(base, operands, site)

    def _copy(self, output: Output, operation: Copy, *, lend: bool = False) -> Tensor:
        if operation.operand.rows is not None:
            return self._matched(operation.operand).to(DTYPES[output.spec.dtype])
        raw = self._library.placed(operation.operand.model, operation.operand.tensor, self._device)
        # a copy even where nothing changes: what is made here may be written to, mapped sources may not
        return raw.to(device=self._device, dtype=DTYPES[output.spec.dtype], copy=not lend)

    def _among_own(self, merged: Tensor, output: Output, rows: SharedRows) -> Tensor:
        """Return the table of `rows.home` with the merged rows in the place of those that are shared."""
        whole = self._copy(output, Copy(operand=rows.home))
        shared = torch.ones(rows.count, dtype=torch.bool, device=merged.device)
        shared[list(rows.own)] = False
        whole[: rows.count][shared] = merged[shared]
        return whole

    def _operands(self, operation: Apply) -> tuple[Tensor | None, Tensor]:
        """Return the base `(*s)` and the operands `(n, *s)` that the method works on, in float32."""
        base = self._read(operation.base, operation) if operation.base is not None else None
        like = self._read(operation.operands[0], operation) if base is None else base
        operands = like.new_empty((len(operation.operands), *like.shape))
        for i, (operand, into) in enumerate(zip(operation.operands, operands, strict=True)):
            if i == 0 and base is None:
                into.copy_(like)  # not read again: it may have to be made
            else:
                self._read_into(into, operation, operand, base)  # one at a time, without a copy beside it
        return base, operands

    def _read_into(self, into: Tensor, operation: Apply, operand: Operand, base: Tensor | None) -> None:
        """Fill `into (*s)` with the operand, or with its task vector where the method works on those."""
        if base is None or operation.method.on == "weights":
            into.copy_(self._read(operand, operation))
        elif (exact := self._adapter_delta(operation, operand)) is not None:
            into.copy_(exact)
        else:
            torch.sub(self._read(operand, operation), base, out=into)

    def _adapter_delta(self, operation: Apply, operand: Operand) -> Tensor | None:
        """Return the task vector of a LoRA adapter of the base as it is stored, None of anything else."""
        home = operation.base
        # a tied base's head is its embedding, and an adapter may untie it
        if home is None or operand.tensor != home.tensor or operand.rows or operation.rows:
            return None
        if operand.model in self.plan.parts or home.model in self.plan.parts:
            return None
        return self._library.adapter_delta(operand.model, home.model, operand.tensor, self._device)

    def _read(self, operand: Operand, operation: Apply) -> Tensor:
        """Return the operand in float32, of a table of tokens the rows that are shared."""
        tensor = self._matched(operand)
        return tensor if operation.rows is None else tensor[: operation.rows.count]

    def _matched(self, operand: Operand) -> Tensor:
        """Return the operand in float32, its rows matched with the merged model's tokens."""
        if operand.rows is None:
            return self._float32(operand)

        def read(k: int, index: Tensor) -> Tensor:
            donor = operand.donors[k]
            if donor.model in self.plan.parts:
                made = self._float32(donor)
                return made.index_select(0, index.to(made.device))
            return self._library.rows(donor.model, donor.tensor, index, self._device)

        return gather(operand.rows, read)

    def _float32(self, operand: Operand) -> Tensor:
        """Return the tensor as its model has it, in float32; that of a merge is made anew each time."""
        if operand.model not in self.plan.parts:
            return self._library.float32(operand.model, operand.tensor, self._device)
        made = self._computed(self.plan.parts[operand.model][operand.tensor], operand.model)
        if not all_finite(made):
            raise MergeError(
                f"`{operand.tensor}` of the merge `{operand.model}` has values that are not finite"
            )
        return made

    def _statistic(self, measured: Operand | None, of: Operand, operation: Apply) -> Tensor | None:
        """Return what was measured on `of`; where that is a number per entry, of the shared rows only."""
        if measured is None:
            return None
        tensor = self._matched(measured)
        if operation.rows is None or tensor.shape != self._library.raw(of.model, of.tensor).shape:
            return tensor
        return tensor[: operation.rows.count]

    def _site(self, output: Output, operation: Apply, *, survey: Any = None) -> Site:
        return Site(
            tensor=output.name,
            sources=self._names(operation),
            seed=self.plan.seed,
            embedding=is_embedding(output.name),
            survey=survey,
            statistics=tuple(
                self._statistic(each, of, operation)
                for each, of in zip(operation.statistics, operation.operands, strict=False)
            ),
            inputs_first=operation.inputs_first,
            keep_masks=self._keep_masks.get(output.name),
        )

    def _names(self, operation: Apply) -> tuple[str, ...]:
        """Return what random draws go by: a model's name; of a merge, whose name may be any, its place."""
        names = (operand.model for operand in operation.operands)
        return tuple(f"#{i}" if name in self.plan.parts else name for i, name in enumerate(names))

    def _look_ahead(self, outputs: tuple[Output, ...]) -> Any:
        """Return the survey of these outputs, or None if there are none."""
        if not outputs:
            return None

        def stream() -> Iterator[View]:
            for output in outputs:
                assert isinstance(output.operation, Apply)
                yield self._view(output, output.operation)

        first = outputs[0].operation
        assert isinstance(first, Apply)
        assert isinstance(first.method, Surveying)
        return first.method.survey(stream)

    def _view(self, output: Output, operation: Apply) -> View:
        return View(
            site=self._site(output, operation),
            shape=output.spec.shape,
            load=lambda: self._operands(operation)[1],
        )


def _not_finite(output: Output) -> MergeError:
    return MergeError(f"merging `{output.name}` gave values that {output.spec.dtype} cannot hold")
