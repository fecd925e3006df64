"""A plan: for each tensor of the merged model its name, shape, dtype, and the operation that makes it.

Two executors carry out the same plan, one into a live model (`memory.py`), one onto disk (`disk.py`);
both call `execute.produce`, so what was scored is what is exported. `planning.py` makes plans.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from evomerge.checkpoints.headers import TensorSpec
from evomerge.checkpoints.rows import RowMap
from evomerge.checkpoints.tokenizer import TokenizerFiles
from evomerge.merge.method import MergeMethod, survey_key_of


@dataclass(frozen=True, kw_only=True)
class Operand:
    """A tensor of a source model, or of a merge as if it were one (a part of the plan).

    With `rows` it is gathered from `donors`, which are those of its picks.
    """

    model: str
    tensor: str
    rows: RowMap | None = None
    donors: tuple[Operand, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Copy:
    """The output is the operand, cast."""

    operand: Operand


@dataclass(frozen=True, kw_only=True)
class SharedRows:
    """Of a table of tokens, the first `count` rows are merged, but for those in `own`.

    These and all that follow are `home`'s.
    """

    home: Operand
    count: int
    own: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Apply:
    """The output is a method applied to the operands, with what was measured on each, if it asks for that.

    Of a table of tokens, it may be applied to the `rows` that the operands share only.
    """

    method: MergeMethod
    base: Operand | None
    operands: tuple[Operand, ...]
    statistics: tuple[Operand | None, ...] = ()
    inputs_first: bool = False
    rows: SharedRows | None = None


@dataclass(frozen=True, kw_only=True)
class Routed:
    """The output is the tensor `part` of a merge or model, itself not part of the output, as a path has it.

    That is times `factor`, plus `offset`.
    The part keeps the name it has in its merge: random masks and surveys go by it, wherever it ends up.
    """

    merge: str
    part: Output
    factor: float
    offset: float = 0.0


Operation: TypeAlias = Copy | Apply | Routed


@dataclass(frozen=True, kw_only=True)
class Output:
    """One tensor of the merged model."""

    name: str
    spec: TensorSpec
    operation: Operation


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Every tensor of the merged model, in writing order, its config and its tokenizer.

    `special` are the ids of special tokens where they are not the template's; `parts` the merges that the
    output is made of, each after those that it reads itself, their tensors by name.
    """

    outputs: tuple[Output, ...]
    config: Mapping[str, Any]
    template: str
    seed: int
    tokenizer: TokenizerFiles | None = None
    special: Mapping[str, Any] | None = None
    parts: Mapping[str, Mapping[str, Output]] = field(default_factory=dict)

    @property
    def models(self) -> tuple[str, ...]:
        """The models the plan reads, each once."""
        read = {self.template: None}
        for output in (*self.outputs, *(each for part in self.parts.values() for each in part.values())):
            for operand in operands_of(output.operation):
                read |= dict.fromkeys([operand.model, *(donor.model for donor in operand.donors)])
        return tuple(name for name in read if name not in self.parts)

    @property
    def nbytes(self) -> int:
        """Bytes of the merged model."""
        return sum(output.spec.nbytes for output in self.outputs)

    @property
    def parameters(self) -> int:
        """Numbers in the merged model."""
        return sum(math.prod(output.spec.shape) for output in self.outputs)

    @property
    def surveyed(self) -> tuple[Output, ...]:
        """The outputs that must all be looked at before any can be made."""
        return surveyed(self.outputs)


def surveyed(outputs: Iterable[Output]) -> tuple[Output, ...]:
    """Return those of the outputs that must all be looked at before any can be made."""
    return tuple(output for output in outputs if survey_key(output.operation) is not None)


def routed(merge: str, part: Output, factor: float = 1.0, offset: float = 0.0) -> Operation:
    """Return the operation that takes the tensor `part` of a merge or model; a copy stays one."""
    if (factor, offset) == (1, 0) and isinstance(part.operation, Copy):
        return part.operation
    return Routed(merge=merge, part=part, factor=factor, offset=offset)


def one_tensor(outputs: Iterable[Output]) -> tuple[tuple[Output, ...], ...]:
    """Return the outputs in groups that are one tensor under several names, in the order of their first."""
    groups: dict[Hashable, list[Output]] = {}
    for output in outputs:
        groups.setdefault((_content(output), output.spec.dtype), []).append(output)
    return tuple(tuple(group) for group in groups.values())


def _content(output: Output) -> Hashable:
    """Return what decides the values of the output, beside the dtype they are cast to."""
    operation = output.operation
    if isinstance(operation, Routed):  # a plan makes each part once, and methods need not be hashable
        return operation.merge, id(operation.part), operation.factor, operation.offset
    if isinstance(operation, Copy):
        return operation
    return output.name  # which random masks go by


def operands_of(operation: Operation) -> tuple[Operand, ...]:
    """Return what the operation reads."""
    if isinstance(operation, Routed):
        return operands_of(operation.part.operation)
    if isinstance(operation, Copy):
        return (operation.operand,)
    others = (operation.base, operation.rows.home if operation.rows else None)
    return operation.operands + tuple(other for other in others if other)


def survey_key(operation: Operation) -> Hashable | None:
    """Return what the operation's survey depends on, or None if it needs none."""
    return survey_key_of(operation.method) if isinstance(operation, Apply) else None
