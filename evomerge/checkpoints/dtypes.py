"""The words of safetensors for torch's dtypes."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U64": torch.uint64,
    "U32": torch.uint32,
    "U16": torch.uint16,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""torch's dtype for a safetensors code."""

CODES = {dtype: code for code, dtype in DTYPES.items()}


def all_finite(values: Tensor) -> bool:
    """Return whether no value is NaN or infinite; from the extremes, a tenth of the time of `isfinite`."""
    if not values.numel():
        return True
    if values.itemsize == 1:  # torch knows no extremes of these
        values = values.float()
    return bool(torch.stack(torch.aminmax(values)).isfinite().all())
