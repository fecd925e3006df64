"""The block influence of a model's layers, read from a statistics file into numbers."""

from __future__ import annotations

import math

from evomerge.checkpoints.measured import Measured
from evomerge.checkpoints.tensors import FileSource
from evomerge.errors import CheckpointError

INFLUENCE = "influence"
"""The file's only tensor, `(layers,)`; `evaluate/layers.py` says what it is."""


def read_influence(measured: Measured) -> tuple[float, ...]:
    """Return the influence of each layer, bottom to top.

    Raises `CheckpointError` if the file does not hold finite numbers, one per layer.
    """
    spec = measured.specs.get(INFLUENCE)
    if spec is None or spec.dtype != "F32" or len(spec.shape) != 1:
        raise CheckpointError(
            f"{measured.path} holds no tensor `{INFLUENCE}` of one F32 number per layer; "
            "measure it again with `evomerge measure influence`"
        )
    source = FileSource(measured)
    numbers = tuple(source.read(INFLUENCE).tolist())
    source.close()
    if not all(map(math.isfinite, numbers)):
        raise CheckpointError(
            f"the influence in {measured.path} holds NaN or infinite values; "
            "measure it again with `evomerge measure influence`"
        )
    return numbers
