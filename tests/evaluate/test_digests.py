"""Digests tell tensors apart that differ in anything, wherever they are made."""

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from evomerge.evaluate import digests
from evomerge.evaluate.digests import summed_up, tensor_digests

WAYS = (tensor_digests, summed_up)


def changed(tensor: Tensor) -> list[Tensor]:
    """Return neighbours of a tensor: bits flipped alone and in pairs, entries swapped, moved, cut off."""
    found = []
    bits = tensor.view(torch.int16)
    for places in ((0,), (1000,), (len(tensor) - 1,), (3, 7), (4, 8, 12, 16)):
        for bit in (1, 1 << 7, -(1 << 15)):
            other = bits.clone()
            other[list(places)] ^= bit
            found.append(other.view(tensor.dtype))
    swapped = tensor.clone()
    swapped[[4, 8]] = tensor[[8, 4]]
    return [*found, swapped, tensor.roll(4), tensor[:-1], torch.cat([tensor, tensor[:1]])]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("size", [2001, 2000, 5000])
def test_whatever_differs_has_another_digest(
    way: Callable[[Sequence[Tensor]], list[str]], size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digests, "_WORDS", 100)
    tensor = torch.randn(size, generator=torch.Generator().manual_seed(0)).bfloat16()
    every = way([tensor, *changed(tensor)])
    assert len(set(every)) == len(every)
    assert len(set(map(len, every))) == 1
    assert way([tensor.clone()]) == every[:1]


@pytest.mark.parametrize("way", WAYS)
def test_a_digest_hangs_on_bytes_alone(way: Callable[[Sequence[Tensor]], list[str]]) -> None:
    numbers = torch.arange(40, dtype=torch.int16)
    [whole] = way([numbers[1:33].clone()])
    assert way([numbers[1:33]]) == [whole]
    assert way([numbers[1:33].clone().view(4, 8)]) == [whole]
    assert way([numbers[1:33].clone().view(8, 4).t().contiguous().t()]) == [whole]
    assert way([numbers[:0]]) == way([numbers[3:3]])


def test_blocks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    tensor = torch.randn(3000, generator=torch.Generator().manual_seed(1))
    whole = summed_up([tensor])
    monkeypatch.setattr(digests, "_WORDS", 7)
    assert summed_up([tensor]) == whole


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_sums_up_as_a_cpu_would() -> None:
    tensor = torch.randn(100_003, generator=torch.Generator().manual_seed(1)).half()
    assert tensor_digests([tensor.cuda(), tensor]) == [*summed_up([tensor]), *tensor_digests([tensor])]
