"""The genes of a merge: a value per parameter, source, run of layers and module group."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property

from evomerge import plugins
from evomerge.parameters import Choice, Gene, Parameter, declared
from evomerge.recipe import Group
from evomerge.recipe.layered import Layered
from evomerge.recipe.merge import IN_LAYERS, Setting
from evomerge.space.genes import GeneSpec
from evomerge.space.schema import Space
from evomerge.space.tables import Anchored, GeneRange, Range, run_label, runs_of
from evomerge.types import Params, Value

METHOD = "method"
"""The gene that chooses among several methods."""


@dataclass(frozen=True, kw_only=True)
class Settled:
    """What the genes say of a merge: its method, its parameters for the whole model and by group."""

    method: str
    params: Mapping[str, Setting]
    groups: tuple[Group, ...] = ()


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A run of layers (None: all, or outside the layers) of some modules, which shares its genes.

    Several `labels` are anchors along the layers, each with genes of its own.
    """

    layers: tuple[int, int] | None
    modules: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class MergeGenes:
    """The genes of the merge of `space` for a model with `layers` layers."""

    space: Space
    layers: int

    @cached_property
    def genes(self) -> tuple[GeneSpec, ...]:
        """Every gene, in a fixed order. Raises `SpaceError` if its runs of layers do not tile the model."""
        found = []
        methods = self.space.merge.methods
        if len(methods) > 1:
            found.append(GeneSpec(name=METHOD, choices=methods, start=methods[0]))
        for parameter in self._parameters.values():
            asked = self._range(parameter)
            if isinstance(asked, Range | list):
                start = parameter.default(self.space.merge.compat)
                found += [_gene(name, start, asked) for name in self._places(parameter)]
        return tuple(found)

    def method(self, params: Params) -> str:
        """Return the method that `params` choose."""
        return str(params.get(METHOD, self.space.merge.methods[0]))

    def settled(self, params: Params) -> Settled:
        """Return what `params` (one value per gene) say of the merge."""
        method = self.method(params)
        own = declared(plugins.load("methods", method))
        whole = {name for name in own if self._parameters[name].spec.whole}
        shared: dict[str, Setting] = {}
        for name, parameter in own.items():
            asked = self._range(parameter)
            if not isinstance(asked, Range | list) and name in self.space.merge.genes:
                shared[name] = asked
            elif name in whole and isinstance(asked, Range | list):
                shared[name] = self._setting(parameter, None, params)
        searched = [
            parameter
            for name, parameter in own.items()
            if isinstance(self._range(parameter), Range | list) and name not in whole
        ]
        groups = tuple(self._group(cell, searched, params) for cell in self._cells) if searched else ()
        return Settled(method=method, params=shared, groups=groups)

    def idle(self, params: Params) -> Iterator[str]:
        """Yield the genes of parameters that the chosen method does not have."""
        own = declared(plugins.load("methods", self.method(params)))
        for gene in self.genes:
            if gene.name != METHOD and gene.name.partition("/")[0] not in own:
                yield gene.name

    @cached_property
    def _parameters(self) -> dict[str, Parameter]:
        """The parameters of all methods to choose among; one of a name stands for all of it."""
        found: dict[str, Parameter] = {}
        for method in self.space.merge.methods:
            for name, parameter in declared(plugins.load("methods", method)).items():
                found[name] = _wider(found[name], parameter) if name in found else parameter
        return found

    @cached_property
    def _cells(self) -> tuple[_Cell, ...]:
        cells = []
        for modules in self.space.merge.module_groups:
            suffix = "" if set(modules) == set(IN_LAYERS) else "/" + "+".join(modules)
            asked = self.space.merge.layers
            if modules[0] not in IN_LAYERS:
                cells.append(_Cell(layers=None, modules=modules, labels=("+".join(modules),)))
            elif isinstance(asked, Anchored):
                labels = tuple(f"A{anchor}{suffix}" for anchor in range(asked.anchors))
                cells.append(_Cell(layers=None, modules=modules, labels=labels))
            else:
                for run in runs_of(asked, self.layers):
                    cells.append(_Cell(layers=run, modules=modules, labels=(run_label(*run) + suffix,)))
        return tuple(cells)

    def _range(self, parameter: Parameter) -> GeneRange:
        """Return what the space asks of a parameter: its own words, else the method's range or default."""
        if parameter.name in self.space.merge.genes:
            return self.space.merge.genes[parameter.name]
        spec = parameter.spec
        if isinstance(spec, Gene) and spec.searched:
            return Range(low=spec.low, high=spec.high)
        if isinstance(spec, Choice) and spec.searched:
            return list(spec.options)
        return spec.default

    def _places(self, parameter: Parameter) -> Iterator[str]:
        """Yield the gene names of a parameter: per source where it has one value per source, per cell."""
        for cell in (None,) if parameter.spec.whole else self._cells:
            if parameter.per_source:
                for source in self.space.merged:
                    yield from _gene_names(parameter, source, cell)
            else:
                yield from _gene_names(parameter, None, cell)

    def _group(self, cell: _Cell, searched: list[Parameter], params: Params) -> Group:
        settings = {parameter.name: self._setting(parameter, cell, params) for parameter in searched}
        return Group(layers=cell.layers, modules=cell.modules, params=settings)

    def _setting(self, parameter: Parameter, cell: _Cell | None, params: Params) -> Setting:
        """Return what the genes say of a parameter in a cell (None: in the whole model)."""
        if not parameter.per_source:
            return _value(parameter, None, cell, params)
        return {source: _value(parameter, source, cell, params) for source in self.space.merged}


def _value(parameter: Parameter, source: str | None, cell: _Cell | None, params: Params) -> Layered:
    """Return the value of a cell's only gene, or the anchors that its genes are."""
    values = tuple(params[name] for name in _gene_names(parameter, source, cell))
    return values if cell and len(cell.labels) > 1 else values[0]


def _gene_names(parameter: Parameter, source: str | None, cell: _Cell | None) -> list[str]:
    """Return `PARAMETER/SOURCE/LABEL` for each label of the cell, without the parts that do not apply."""
    labels = cell.labels if cell else (None,)
    return ["/".join(filter(None, (parameter.name, source, label))) for label in labels]


def _gene(name: str, default: Value, asked: Range | list[Value]) -> GeneSpec:
    if isinstance(asked, list):
        start = default if default in asked else asked[0]
        return GeneSpec(name=name, choices=tuple(asked), start=start)
    start = min(max(float(default), asked.low), asked.high)
    return GeneSpec(name=name, low=asked.low, high=asked.high, log=asked.log, start=start)


def _wider(one: Parameter, other: Parameter) -> Parameter:
    """Return the parameter with the smallest range that holds both methods' ranges."""
    if not isinstance(one.spec, Gene) or not isinstance(other.spec, Gene):
        return one
    spec = Gene(
        low=min(one.spec.low, other.spec.low),
        high=max(one.spec.high, other.spec.high),
        default=one.spec.default,
        meaning=one.spec.meaning,
        searched=one.spec.searched or other.spec.searched,
        whole=one.spec.whole or other.spec.whole,
        under=one.spec.under,
    )
    return Parameter(name=one.name, field=one.field, per_source=one.per_source, spec=spec)
