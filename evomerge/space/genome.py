"""The genes of a space over models of so many layers, and what their values decode to.

Every gene is asked for in every trial, also those of a method that was not chosen or of a layer that is not
passed: samplers learn best from a space that does not change shape. Recipes that differ in idle genes only
share one key.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

from evomerge import plugins
from evomerge.merge.method import MergeMethod, statistic_of
from evomerge.recipe import Ends, Group, Merge, ModelRef, Recipe
from evomerge.recipe.merge import Setting
from evomerge.recipe.path import NO_ENDS
from evomerge.space.genes import GeneSpec
from evomerge.space.merge_genes import MergeGenes
from evomerge.space.paths.form import MERGED, SWAPPED, Layout, Parts
from evomerge.space.schema import Space
from evomerge.types import Params


@dataclass(frozen=True, kw_only=True)
class Genome:
    """The genes of `space` for models with `layers` layers, whose `influence` some were measured for."""

    space: Space
    layers: int
    models: Mapping[str, ModelRef]
    influence: Mapping[str, tuple[float, ...]] = field(default_factory=dict)

    @cached_property
    def genes(self) -> tuple[GeneSpec, ...]:
        """Every gene, those of the merge first. Raises `SpaceError` if the models have too few layers."""
        own = self._merge_genes.genes if self.space.merges else ()
        return own + (self.space.path.genes(self.parts) if self.space.path else ())

    @property
    def start(self) -> Params:
        """The point where every gene has its starting value."""
        return {gene.name: gene.start for gene in self.genes}

    def starts_with(self, model: str) -> bool:
        """Return whether the starting point of a path is all of the source `model`, ends included."""
        if self.space.path is None:
            return False
        layout = self.space.path.layout(self.start, self.parts)
        ends = Ends(embed=model, head=model)
        return (layout.path, layout.ends) == (self.parts.whole(model), ends)

    def decode(self, params: Params) -> Recipe:
        """Return the recipe that `params` (one value per gene) stand for."""
        if self.space.path is None:
            return self._recipe({MERGED: self._merge(params)})
        return self._along(self.space.path.layout(params, self.parts), params)

    def tour(self) -> Iterator[Recipe]:
        """Yield recipes that hold every model of a path beside the others, to see whether they fit."""
        for layout in self.space.path.tour(self.parts) if self.space.path else ():
            yield self._along(layout, self.start)

    def _along(self, layout: Layout, params: Params) -> Recipe:
        merges = {MERGED: self._merge(params)} if MERGED in layout.names else {}
        if layout.swap is not None:
            return self._recipe({**merges, SWAPPED: layout.swap})
        return self._recipe(merges, layout)

    def idle(self, params: Params) -> frozenset[str]:
        """Return the genes on which nothing depends while the others have these values."""
        if self.space.path is None:
            return frozenset(self._merge_genes.idle(params))
        found = set(self.space.path.idle(params, self.parts))
        if MERGED in self.space.path.layout(params, self.parts).names:
            found |= set(self._merge_genes.idle(params))
        elif self.space.merges:
            found |= {gene.name for gene in self._merge_genes.genes}
        return frozenset(found)

    def recipe(
        self,
        method: str,
        *,
        params: Mapping[str, Setting],
        groups: tuple[Group, ...] = (),
        sources: tuple[str, ...] | None = None,
    ) -> Recipe:
        """Return a merge of this space's models as a recipe, with its dtype and mask seed.

        Where tokens are matched, the base gives them to every method; a source alone keeps its own.
        """
        merge = self._merge_of(method, params=params, groups=groups, sources=sources)
        return self._recipe({MERGED: merge}, alone=sources is not None and len(sources) == 1)

    def compat(self, kind: type[MergeMethod]) -> str:
        """Return whose semantics a method has: those the space asks for, where it knows them."""
        asked = self.space.merge.compat
        return asked if asked in kind.compats else "evomerge"

    @cached_property
    def parts(self) -> Parts:
        """What the path may take layers from; a merge has the influence of a model it is made of."""
        influence = dict(self.influence)
        behind = [self.space.merge.base, *self.space.merged]
        known = [influence[name] for name in behind if name in influence]
        if known:
            influence[MERGED] = known[0]
        return Parts(names=self.space.path_models, layers=self.layers, influence=influence)

    @cached_property
    def _merge_genes(self) -> MergeGenes:
        return MergeGenes(space=self.space, layers=self.layers)

    def _merge(self, params: Params) -> Merge:
        settled = self._merge_genes.settled(params)
        return self._merge_of(settled.method, params=settled.params, groups=settled.groups)

    def _merge_of(
        self,
        method: str,
        *,
        params: Mapping[str, Setting],
        groups: tuple[Group, ...],
        sources: tuple[str, ...] | None = None,
    ) -> Merge:
        kind = plugins.load("methods", method)
        own = self.space.merge
        tokenizer = None if sources is not None and len(sources) == 1 else self.space.tokenizer
        return Merge(
            method=method,
            sources=sources or self.space.merged,
            base=own.base if kind.base != "unused" or tokenizer is not None else None,
            params=params,
            groups=groups,
            compat=self.compat(kind),
        )

    def _recipe(
        self, merges: Mapping[str, Merge], layout: Layout | None = None, *, alone: bool = False
    ) -> Recipe:
        """Return the recipe of the last merge, or of the path of a layout over models and merges.

        The model whose tokenizer it is gives the form, too, where it is not among those merged.
        """
        tokenizer = None if alone or not merges else self.space.tokenizer
        read = [name for merge in merges.values() for name in merge.models]
        template = ""
        if layout is None:
            own = self.space.merge
            words = own.template or own.base if tokenizer == "base" else tokenizer
            apart = words in self.models and words not in read  # as the base is, of layers that are swapped
            template = (words if apart else own.template) or ""
        named = {*read, template, *(layout.names if layout else ())}
        named |= {ref.adapts for name, ref in self.models.items() if name in named and ref.adapts}
        statistics = {statistic_of(plugins.load("methods", merge.method)) for merge in merges.values()}
        statistic = next((each for each in statistics if each is not None), None)
        return Recipe(
            models={name: ref.informed_by(statistic) for name, ref in self.models.items() if name in named},
            merges=merges,
            path=layout.path if layout else None,
            ends=layout.ends if layout and layout.ends else NO_ENDS,
            dtype=self.space.dtype,
            seed=self.space.seed,
            tokenizer=tokenizer,
            untie=self.space.untie,
            template=template,
        )
