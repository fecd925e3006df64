"""Ranks of entries within rows."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_ENTRIES = 1 << 24
"""How many entries are ranked at a time: sorting takes sixteen bytes of each."""


def rows_of(tensor: Tensor) -> Tensor:
    """Return `tensor (*s, m)` as `(r, m)`, one row per slice along the last dim; a scalar is a row of one."""
    width = tensor.shape[-1] if tensor.ndim else 1
    return tensor.reshape(tensor.numel() // width if width else 0, width)


def ranks(rows: Tensor) -> Tensor:
    """Return for `rows (r, m)` each entry's ascending rank in its row, from 0, equal entries by position."""
    import torch

    found = torch.empty(rows.shape, dtype=torch.int32, device=rows.device)
    places = torch.arange(rows.shape[1], dtype=torch.int32, device=rows.device)
    height = max(1, _ENTRIES // max(1, rows.shape[1]))
    for block, into in zip(torch.split(rows, height), torch.split(found, height), strict=True):
        order = block.argsort(dim=1, stable=True)
        into.scatter_(1, order, places.expand(order.shape))
    return found
