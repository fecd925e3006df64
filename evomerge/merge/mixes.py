"""What merges make, as far as it can be told without their tensors: mixes of models, and terms of JSON.

`equivalence.py` compares recipes by them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from evomerge.merge.method import Averaging
from evomerge.parameters import Gene, declared
from evomerge.types import Value

GRAIN = 1e-6
"""Weights of a sum this close together are the same."""

_SMALLEST_SUM = 1e-6
"""Weights that sum to less are not made shares of."""
_COARSE_FROM = 0.05
"""Smaller numbers count as they are: of them the grain would be no small part."""

Mix: TypeAlias = Mapping[str, float]
"""A linear combination: for each term, a model or what a method makes (as JSON), its coefficient."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """A source as its merge sees it; random draws know it by the name `drawn_by`."""

    mix: Mix
    params: dict[str, Value]
    weight: float
    measured: Any
    drawn_by: str

    @property
    def said(self) -> list[Any]:
        return [said(self.mix), self.params, self.measured]


def combined(method: Any, base: Mix | None, sources: list[Source]) -> Mix | None:
    """Return what a method adds up to, if under its parameters it is no more than a weighted sum."""
    weights = [each.weight for each in sources]
    total = math.fsum(weights)
    if method.additive is not None and base is not None and _has(method, method.additive):
        parts = [(base, 1.0 - total), *((each.mix, each.weight) for each in sources)]
    elif isinstance(method, Averaging) and _has(method, method.average) and abs(total) >= _SMALLEST_SUM:
        parts = [(each.mix, each.weight / total) for each in sources]
    else:
        return None
    mix: dict[str, float] = {}
    for part, share in parts:
        for term, coefficient in part.items():
            mix[term] = mix.get(term, 0.0) + share * coefficient
    return mix


def _has(method: Any, settings: Mapping[str, Value]) -> bool:
    """Return whether the method's parameters have these values, for every source that has a weight."""
    known = declared(type(method))
    for name, value in settings.items():
        found = getattr(method, known[name].field)
        if known[name].per_source:
            found = {each for each, weight in zip(found, method.weight, strict=True) if weight != 0}
            if found - {value}:
                return False
        elif found != value:
            return False
    return True


def params_of(method: Any, *, source: int | None = None) -> dict[str, Value]:
    """Return the parameters of a source, or those that hold for all, numbers rounded to their grain."""
    found: dict[str, Value] = {}
    for name, parameter in declared(type(method)).items():
        if parameter.per_source == (source is not None):
            value = getattr(method, parameter.field)
            value = value if source is None else value[source]
            spec = parameter.spec
            found[name] = _within(spec, value) if isinstance(spec, Gene) else value
    return found


def _within(spec: Gene, value: float) -> float:
    """Return a number rounded to the gene's grain, but not onto the end of its range."""
    near = rounded(value, spec.grain)
    return value if near in (spec.least, spec.most) else near


def rounded(value: float, grain: float) -> float:
    """Return a number rounded to the grain, unless that is a good part of it."""
    if not grain or abs(value) < _COARSE_FROM:
        return float(value)
    return round(value / grain) * grain


def runs(said: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Return the first of each run of layers of which the same is said."""
    return [
        each for before, each in zip([None, *said], said, strict=False) if not before or before[1] != each[1]
    ]


def said(mix: Mix) -> Any:
    """Return a mix as JSON values: its terms in order, those aside whose coefficient rounds to zero."""
    counts = {term: round(coefficient / GRAIN) for term, coefficient in mix.items()}
    return [[term, count] for term, count in sorted(counts.items()) if count]


def as_json(content: Any) -> str:
    """Return JSON values as text, the same for the same content."""
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
