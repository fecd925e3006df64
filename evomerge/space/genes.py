"""One searched value of a space."""

from __future__ import annotations

from dataclasses import dataclass

from evomerge.types import Value


@dataclass(frozen=True, kw_only=True)
class GeneSpec:
    """One searched value: a range of numbers, or a list of choices; `start` is where to begin."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    whole: bool = False
    choices: tuple[Value, ...] | None = None
    start: Value = 0.5

    def at(self, share: float) -> Value:
        """Return the value at a `share` of the range, 0 to 1; choices and whole numbers divide it equally."""
        if self.choices is not None:
            return self.choices[min(int(share * len(self.choices)), len(self.choices) - 1)]
        if self.whole:
            return min(int(self.low + share * (self.high - self.low + 1)), int(self.high))
        if self.log:
            value = self.low * (self.high / self.low) ** share
        else:
            value = self.low + share * (self.high - self.low)
        return min(max(float(value), self.low), self.high)
