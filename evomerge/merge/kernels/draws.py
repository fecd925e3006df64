"""Random draws that hang on a key and an entry's place only: any part of them, on any device, in any order.

A counter is hashed, two draws of sixteen bits from each word, by an integer hash of low bias
(https://github.com/skeeto/hash-prospector, `lowbias32`) into whose middle the key goes a second time.
torch's own generator takes ten times as long, draws one after another, and differs between devices.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

_STEPS = 1 << 16
"""A draw is one of so many numbers, so a chance is met to half of one part in that."""
_LANES = 1 << 16
"""Words made at a time: they stay in the cache."""
_FIRST, _SECOND = 0x7FEB352D, 0x846CA68B


def uniform(key: int, start: int, like: Tensor) -> Tensor:
    """Return draws from (0, 1) shaped as `like`, those of the entries from `start` (even) on; float32."""
    return _drawn(key, start, like).add_(_STEPS / 2 + 0.5).div_(_STEPS)


def kept(key: int, start: int, like: Tensor, chance: float) -> Tensor:
    """Return 1 where the draw of `uniform` is below `chance`, else 0: a mask to multiply by, in float32."""
    drawn = _drawn(key, start, like)
    return drawn.lt_(bound(chance))


def bound(chance: float) -> float:
    """Return what draws, as whole numbers from −32768 on, are below with a chance."""
    return chance * _STEPS - (_STEPS / 2 + 0.5)


def halves(key: int) -> tuple[int, int]:
    """Return the low and the high half of a key, as torch's int32 has them."""
    return _signed(key), _signed(key >> 32)


def _drawn(key: int, start: int, like: Tensor) -> Tensor:
    """Return whole numbers from −32768 on, shaped as `like`, as float32."""
    import torch

    drawn = torch.empty(like.numel(), dtype=torch.float32, device=like.device)
    at = 0
    for words in _words(key, start // 2, like):
        part = drawn[at : at + 2 * len(words)]
        part.copy_(words.view(torch.int16)[: len(part)])
        at += len(part)
    return drawn.view(like.shape)


def _words(key: int, first: int, like: Tensor) -> Iterator[Tensor]:
    """Yield hashed words, two draws in each, from the word `first` on, until there are enough for `like`."""
    low, high = halves(key)
    left = (like.numel() + 1) // 2
    while left > 0:
        words = _counter(min(left, _LANES), like.device) + _signed(first)
        shifted = words.clone()
        _mix(words.bitwise_xor_(low), shifted, 16).mul_(_signed(_FIRST))
        _mix(words.bitwise_xor_(high), shifted, 15).mul_(_signed(_SECOND))
        yield _mix(words, shifted, 16)
        first, left = first + _LANES, left - _LANES


def _mix(words: Tensor, room: Tensor, places: int) -> Tensor:
    """Return `words`, written over, each xor itself shifted right without its sign."""
    import torch

    torch.bitwise_right_shift(words, places, out=room)
    return words.bitwise_xor_(room.bitwise_and_((1 << 32 - places) - 1))


@lru_cache(maxsize=32)
def _counter(count: int, device: object) -> Tensor:
    import torch

    return torch.arange(count, dtype=torch.int32, device=device)  # type: ignore[call-overload,no-any-return]


def _signed(word: int) -> int:
    """Return the 32 low bits of `word` as torch's integers have them."""
    return (word + 0x80000000 & 0xFFFFFFFF) - 0x80000000
