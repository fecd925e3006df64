"""Loops made by `torch.compile`: one pass over what is stored, where operations of their own take a dozen.

It takes a C++ compiler (on a GPU, Triton), some fifteen seconds for the first loop and two for each further,
and less where the loops of earlier processes are found again. So it pays for models of some size only.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evomerge.merge.kernels.loops import CHUNK, Function, Loop, count_ties, float_numbers

_log = logging.getLogger(__name__)

LEAST_PARAMETERS = 250_000_000
"""A model of fewer is merged sooner than loops are compiled."""

LEAST_PARAMETERS_ONCE = 1_000_000_000
"""The same for a merge that is made once."""

CACHE = Path("~/.cache/evomerge/loops")
"""Where compiled loops stay: torch's own place, in the folder for everybody's files, others could fill."""

_ALONE: dict[str, Any] = {"compile_threads": 1}  # no pool of processes for a handful of loops
_AS_EAGER: dict[str, Any] = {"emulate_precision_casts": True, "eager_numerics.division_rounding": True}
"""On a GPU: no product is added without being rounded, and quotients are the nearest numbers."""

_LEAST_ENTRIES = 1 << 18
"""Tensors of fewer are merged block by block: what is compiled first looks at what it is given."""


class Loops:
    """Compiled loops, each compiled when it is first asked for; none once one could not be compiled."""

    def __init__(self) -> None:
        self._compiled: dict[Function, Callable[..., Tensor]] = {}
        self._works = True
        try:
            os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(CACHE.expanduser()))
        except RuntimeError:  # nobody's home, so there is no place that is ours alone
            self._works = False

    def suits(self, into: Tensor) -> bool:
        """Return whether a tensor is worth a loop, and loops can be made."""
        return self._works and into.numel() >= _LEAST_ENTRIES

    def count_ties(
        self, base: Tensor, models: Sequence[Tensor], rows: Sequence[Sequence[float]]
    ) -> Tensor | None:
        """Return how many entries of n task vectors have a magnitude, by whole `CHUNK`s; None as `run`.

        Each of the k `rows` has a magnitude for every vector; the counts are `(k, n, c)`, on the CPU.
        """
        chunks = len(base) // CHUNK
        counts = torch.empty((len(rows), len(models), chunks), dtype=torch.int64, device=base.device)
        loop = Loop(function=count_ties, numbers=float_numbers(*rows))
        stored = [model[: chunks * CHUNK] for model in models]
        return None if self.run(loop, base[: chunks * CHUNK], stored, counts) is None else counts.cpu()

    def run(self, loop: Loop, base: Tensor | None, models: list[Tensor], into: Tensor) -> bool | None:
        """Write what the loop makes of the models into `into`; return whether all is finite.

        None where it cannot be compiled: nothing that counts has been written then.
        """
        function = self._compiled.get(loop.function)
        if function is None:
            options = _ALONE if into.device.type == "cpu" else _ALONE | _AS_EAGER
            compiled: Any = torch.compile(loop.function, dynamic=True, fullgraph=True, options=options)
            function = self._compiled[loop.function] = compiled
        try:
            numbers = [each.to(into.device) for each in loop.numbers]
            return bool(function(base, models, numbers, into.view(-1)))
        except (torch._dynamo.exc.TorchDynamoException, OSError) as error:
            self._works = False
            _log.warning("merging without compiled loops: %s", (str(error).strip() or type(error).__name__))
            return None


def can_compile(device: torch.device) -> bool:
    """Return whether there is what `torch.compile` compiles with."""
    if device.type == "cuda":
        from torch._inductor import list_options  # takes seconds
        from torch.utils._triton import has_triton

        return has_triton() and _AS_EAGER.keys() <= set(list_options())
    return any(shutil.which(name) for name in ("c++", "g++", "clang++"))
