"""The genes of a space over a model of so many layers, and what their values decode to.

Every gene is asked for in every trial, also those of a method that was not chosen: samplers learn best
from a space that does not change shape. Recipes that differ in idle genes only share one key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

from evomerge import plugins
from evomerge.errors import SpaceError
from evomerge.merge.method import MergeMethod, statistic_of
from evomerge.parameters import Choice, Gene, Parameter, declared
from evomerge.recipe import Group, Merge, ModelRef, Recipe
from evomerge.recipe.layered import Layered
from evomerge.recipe.merge import IN_LAYERS, Setting
from evomerge.space.schema import Anchored, GeneRange, Range, Space
from evomerge.types import Params, Value

METHOD = "method"
"""The gene that chooses among several methods."""

_RUNS = 4  # of layers, unless the space says otherwise


@dataclass(frozen=True, kw_only=True)
class GeneSpec:
    """One searched value: a range of numbers, or a list of choices; `start` is where to begin."""

    name: str
    low: float = 0.0
    high: float = 1.0
    log: bool = False
    choices: tuple[Value, ...] | None = None
    start: Value = 0.5


@dataclass(frozen=True, kw_only=True)
class _Cell:
    """A run of layers (None: all, or outside the layers) of some modules, which shares its genes.

    Several `labels` are anchors along the layers, each with genes of its own.
    """

    layers: tuple[int, int] | None
    modules: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Genome:
    """The genes of `space` for a model with `layers` layers."""

    space: Space
    layers: int
    models: Mapping[str, ModelRef]

    @cached_property
    def genes(self) -> tuple[GeneSpec, ...]:
        """Every gene, in a fixed order."""
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

    def decode(self, params: Params) -> Recipe:
        """Return the recipe that `params` (one value per gene) stand for."""
        method = str(params.get(METHOD, self.space.merge.methods[0]))
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
        return self.recipe(method, params=shared, groups=groups)

    def recipe(
        self,
        method: str,
        *,
        params: Mapping[str, Setting],
        groups: tuple[Group, ...] = (),
        sources: tuple[str, ...] | None = None,
    ) -> Recipe:
        """Return a recipe over this space's models, with its dtype and mask seed.

        Where tokens are matched, the base gives them to every method; a source alone keeps its own. The
        model whose tokenizer it is gives the form, too, where it is not among `sources`.
        """
        kind = plugins.load("methods", method)
        own, named = self.space.merge, sources or self.space.merged
        alone = sources is not None and len(sources) == 1
        tokenizer = None if alone else self.space.tokenizer
        merge = Merge(
            method=method,
            sources=named,
            base=own.base if kind.base != "unused" or tokenizer is not None else None,
            params=params,
            groups=groups,
            compat=self.compat(kind),
        )
        apart = tokenizer in self.models and tokenizer not in merge.models
        template = tokenizer if apart else own.template
        used = {*merge.models, template}
        used |= {ref.adapts for name, ref in self.models.items() if name in used}
        statistic = statistic_of(kind)
        models = {name: ref.informed_by(statistic) for name, ref in self.models.items() if name in used}
        return Recipe(
            models=models,
            merges={"merged": merge},
            dtype=self.space.dtype,
            seed=self.space.seed,
            tokenizer=tokenizer,
            untie=self.space.untie,
            template=template or "",
        )

    def compat(self, kind: type[MergeMethod]) -> str:
        """Return whose semantics a method has: those the space asks for, where it knows them."""
        asked = self.space.merge.compat
        return asked if asked in kind.compats else "evomerge"

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
                for first, last in self._runs(asked):
                    label = f"L{first}-{last}" if last > first else f"L{first}"
                    cells.append(_Cell(layers=(first, last), modules=modules, labels=(label + suffix,)))
        return tuple(cells)

    def _runs(self, asked: int | str | list[list[int]] | None) -> tuple[tuple[int, int], ...]:
        """Return the runs of layers that share genes. Raises `SpaceError` if they do not tile the model."""
        if isinstance(asked, list):
            covered = [layer for first, last in asked for layer in range(first, last + 1)]
            if covered != list(range(self.layers)):
                raise SpaceError(
                    f"runs of layers must cover layers 0 to {self.layers - 1} in order without gap or "
                    f"overlap, found {asked}"
                )
            return tuple((first, last) for first, last in asked)
        if asked is None:
            asked = min(_RUNS, self.layers)
        count = self.layers if asked == "each" else int(asked)
        if count > self.layers:
            raise SpaceError(f"{count} runs of layers are asked for, but there are {self.layers} layers")
        edges = [i * self.layers // count for i in range(count + 1)]
        return tuple((low, high - 1) for low, high in pairwise(edges))

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
