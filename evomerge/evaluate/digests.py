"""Digests of tensors, made where these lie: to bring a model over from a GPU takes longer than a merge."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
import xxhash
from torch import Tensor

_WORDS = 1 << 23
"""Words of 64 bits that are mixed at a time on a GPU, in a few copies of 64 MiB."""
_ODD = (-0x61C8864680B583EB, 0x2545F4914F6CDD1D, -0x40A7B892E31B1A47)
"""Multipliers that spread bits; the first is that of splitmix64 (https://doi.org/10.1145/2714064.2660195)."""


def tensor_digests(tensors: Sequence[Tensor]) -> list[str]:
    """Return hex digits over the bytes of each tensor; those of GPUs compare to one another only."""
    there = [i for i, tensor in enumerate(tensors) if tensor.device.type == "cuda"]
    sums = dict(zip(there, summed_up([tensors[i] for i in there]), strict=True))
    return [sums[i] if i in sums else _hashed(tensor) for i, tensor in enumerate(tensors)]


def summed_up(tensors: Sequence[Tensor]) -> list[str]:
    """Return 16 hex digits over the bytes of each tensor, by sums that hang on no order of adding."""
    if not tensors:
        return []
    sums = torch.stack([_sum(tensor) for tensor in tensors])  # brought over at once
    return [f"{each & (1 << 64) - 1:016x}" for each in sums.tolist()]


def _hashed(tensor: Tensor) -> str:
    return xxhash.xxh3_128_hexdigest(_bytes(tensor.cpu()).numpy().data)


def _bytes(tensor: Tensor) -> Tensor:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8)


def _sum(tensor: Tensor) -> Tensor:
    """Return the sum, int64, of a tensor's words, each mixed with its place."""
    total = torch.zeros((), dtype=torch.int64, device=tensor.device)
    start = 0
    for words in _words(_bytes(tensor)):
        places = torch.arange(start, start + len(words), device=words.device)
        mixed = places.mul_(_ODD[0]).bitwise_xor_(words).mul_(_ODD[1])
        total += mixed.bitwise_xor_(mixed >> 32).mul_(_ODD[2]).sum()
        start += len(words)
    return total


def _words(content: Tensor) -> Iterator[Tensor]:
    """Yield bytes as words of 64 bits, `_WORDS` at a time; zeros fill the last."""
    whole = len(content) // 8 * 8
    if whole and content.data_ptr() % 8:
        content = content.clone()
    yield from torch.split(content[:whole].view(torch.int64), _WORDS) if whole else ()
    if len(content) > whole:
        last = content.new_zeros(8)
        last[: len(content) - whole] = content[whole:]
        yield last.view(torch.int64)
