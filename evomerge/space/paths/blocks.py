"""A compact data-flow space: how often each run of layers of each model is passed, at its own depth.

The runs follow one another from bottom to top. In each, the models take turns, each as often as its gene
says: not at all (a skip), once, or several times over (a repeat). This has a few genes where a switch per
layer has hundreds; what it gives up is going back to layers of another run.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal, TypeAlias

from pydantic import Field, field_validator

from evomerge.recipe import Slot
from evomerge.recipe.path import LONGEST
from evomerge.space.genes import GeneSpec
from evomerge.space.paths.form import Layout, Parts, Stack
from evomerge.space.tables import Runs, Scales, check_pairs, run_label, runs_of
from evomerge.types import Params

Run: TypeAlias = tuple[int, int]
Passes: TypeAlias = dict[tuple[Run, str], int]
"""How often each run of each model is passed."""


class Blocks(Stack):
    """How often each run of layers is passed, per model.

    A `scale` stands where a run begins, once for the run. Where the stack would be longer than `most`, the
    run that is passed most often is passed once less, the uppermost first.
    """

    form: Literal["blocks"]
    """How often each run of layers is passed, per model."""
    layers: Runs = None
    """How the layers are cut into runs: so many equal ones (default: 4), "each", or listed [first, last]."""
    times: Annotated[int, Field(ge=1, le=LONGEST)] = 2
    """How often a run is passed at most."""

    @field_validator("layers")
    @classmethod
    def _pairs(cls, layers: Runs) -> Runs:
        check_pairs(layers)
        return layers

    def genes(self, parts: Parts) -> tuple[GeneSpec, ...]:
        self.check_room(parts)
        found: list[GeneSpec] = []
        for run in runs_of(self.layers, parts.layers):
            found += [self._gene(run, name, parts) for name in parts.names]
            found += self.scale_gene(_scale(run))
        return (*found, *self.end_genes())

    def layout(self, params: Params, parts: Parts) -> Layout:
        path = self._stack(self._passes(params, parts), params, parts)
        return Layout(path=path, ends=self.ends(params, parts))

    def idle(self, params: Params, parts: Parts) -> Iterable[str]:
        if not isinstance(self.scale, Scales):
            return ()
        passes = self._passes(params, parts)
        runs = runs_of(self.layers, parts.layers)
        return [_scale(run) for run in runs if not any(passes[run, name] for name in parts.names)]

    def _gene(self, run: Run, name: str, parts: Parts) -> GeneSpec:
        start = 1 if name == parts.names[0] else 0
        return GeneSpec(name=_times(run, name), low=0, high=self.times, whole=True, start=start)

    def _passes(self, params: Params, parts: Parts) -> Passes:
        """Return how often each run is passed, where there is room."""
        runs = runs_of(self.layers, parts.layers)
        passes = {(run, name): int(params[_times(run, name)]) for run in runs for name in parts.names}
        level = max(passes.values())
        while level > 1 and self._length(_at_most(level - 1, passes), parts) > self.longest(parts):
            level -= 1
        passes = _at_most(level, passes)
        while self._length(passes, parts) > self.longest(parts):
            most = max(passes.values())
            *_, uppermost = (key for key, times in passes.items() if times == most)
            passes[uppermost] -= 1
        return passes

    def _length(self, passes: Passes, parts: Parts) -> int:
        return sum(times * (last - first + 1) for (first, last), _, times in self._row(passes, parts))

    def _row(self, passes: Passes, parts: Parts) -> list[tuple[Run, str, int]]:
        """Return the runs that are passed and, if they are not there, the ends that must be."""
        row = [(run, name, times) for (run, name), times in passes.items() if times]
        if not row or (self.pinned and row[0][0][0] != 0):
            row.insert(0, ((0, 0), parts.names[0], 1))
        if self.pinned and row[-1][0][1] != parts.last:
            row.append(((parts.last, parts.last), parts.names[0], 1))
        return row

    def _stack(self, passes: Passes, params: Params, parts: Parts) -> tuple[Slot, ...]:
        """Return the layers of all passes, and the scale of a run where it begins."""
        ahead = {run for (run, _), times in passes.items() if times}
        path = []
        for run, name, times in self._row(passes, parts):
            for layer in [*range(run[0], run[1] + 1)] * times:
                scale = self.scale_at(_scale(run), params) if run in ahead else 1.0
                ahead.discard(run)
                path.append(Slot(model=name, layer=layer, scale=scale))
        return tuple(path)


def _at_most(level: int, passes: Passes) -> Passes:
    return {key: min(times, level) for key, times in passes.items()}


def _times(run: Run, name: str) -> str:
    return f"path/times/{name}/{run_label(*run)}"


def _scale(run: Run) -> str:
    return f"path/scale/{run_label(*run)}"
