"""Recipes that build the same function share one key, however they are written.

`Recipe.key` tells recipes apart that ask for different tensors by name and number; this goes by what their
methods declare. Sources of no weight drop out, their order falls away where nothing depends on it, what adds
up to one model is that model, a seed counts only where something is drawn, and groups or slots are compared
by what holds in each layer. Numbers count to 1e-4 where their gene has such a grain, or they weigh a sum.

Where it is not certain that two recipes are the same they get different keys: a search inherits scores by
them. Sources are taken to have the same tensors, tied or not; where they have not, go by `Recipe.key`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from evomerge import plugins
from evomerge.errors import MergeError, RecipeError, RequestError
from evomerge.merge.method import MergeMethod, ignored_by, statistic_of, survey_key_of
from evomerge.merge.mixes import GRAIN, Mix, Source, as_json, combined, params_of, rounded, runs, said
from evomerge.parameters import bind, declared
from evomerge.recipe import MODULES, Merge, Recipe
from evomerge.recipe.merge import IN_LAYERS
from evomerge.recipe.model import ModelRef, plain
from evomerge.types import Statistic


def canonical_key(recipe: Recipe, *, layers: int | None = None) -> str:
    """Return 32 hex digits that recipes share only if they build models that compute the same.

    `layers` is the number of the merged models' layers, where it is known: what would hold beyond the last
    one then counts for nothing.
    """
    try:
        content = _content(recipe, layers)
    except (RequestError, MergeError):
        content = ["as it is written", recipe.key]  # it cannot be built, which is for others to say
    return hashlib.sha256(as_json(content).encode()).hexdigest()[:32]


def _content(recipe: Recipe, layers: int | None) -> Any:
    if recipe.tokenizer is not None:
        return ["as it is written", recipe.key]  # which tokens there are depends on every model
    terms = _Terms(recipe)
    made = terms.whole(recipe.embed_from, layers) if recipe.path is None else _stack(recipe, terms)
    return [terms.model(recipe.form_from), recipe.dtype, recipe.untie, made]


def _stack(recipe: Recipe, terms: _Terms) -> Any:
    """Return what a path is made of: each slot's modules, and the ends."""

    def of(name: str, module: str, layer: int | None) -> Any:
        return [layer, said(terms.at(name, module, layer))]

    slots = [
        [
            rounded(slot.scale, GRAIN),
            plain(slot.weights),
            of(slot.model, "attn", slot.layer),
            of(slot.model, "mlp", slot.layer),
            of(slot.model, "rest", slot.layer if slot.norms is None else slot.norms),
        ]
        for slot in recipe.path or ()
    ]
    ends = [
        of(recipe.embed_from, "embed", None),
        of(recipe.head_from, "embed", None),  # which is the head of a tied model
        of(recipe.head_from, "head", None),
    ]
    return [slots, ends, plain(recipe.ends.weights)]


@dataclass(frozen=True)
class _Terms:
    """What the tensors of a recipe's models and merges are, by name, module and layer."""

    recipe: Recipe
    _known: dict[tuple[str, str, int | None], Mix] = field(default_factory=dict)

    def model(self, name: str) -> Any:
        """Return the content of a model, with that of the one it changes if it may be an adapter."""
        ref = self.recipe.models[name]
        content = ref.informed_by(None).content
        # without a digest, which covers it, there is no telling whether it is one of the merge's base
        under = ref.adapts or (None if ref.digest else self.recipe.base_of(name))
        return content if under in (None, name) else [content, self.model(under)]

    def at(self, name: str, module: str, layer: int | None) -> Mix:
        """Return what the tensors of `module` in `layer` of a model or merge are."""
        if name in self.recipe.models:
            return {as_json(self.model(name)): 1.0}
        return self._made(name, module, layer)

    def whole(self, merge: str, layers: int | None) -> Any:
        """Return what a merge is everywhere: by module runs of layers that are made alike."""
        return self._everywhere(merge, layers, lambda module, layer: said(self._made(merge, module, layer)))

    def _everywhere(self, merge: str, layers: int | None, say: Callable[[str, int | None], Any]) -> Any:
        starts = sorted(start for start in self._starts(merge) if layers is None or start < layers)
        inside = {module: runs([(start, say(module, start)) for start in starts]) for module in IN_LAYERS}
        return inside | {module: say(module, None) for module in MODULES if module not in IN_LAYERS}

    def _starts(self, merge: str) -> set[int]:
        """Return the layers from which on another group may hold, in a merge or one that it reads."""
        own = self.recipe.merges[merge]
        spans = [group.layers for group in own.groups if group.layers is not None]
        inner = [each for each in own.models if each not in self.recipe.models]
        return {0, *(start for first, last in spans for start in (first, last + 1))}.union(
            *map(self._starts, inner)
        )

    def _made(self, name: str, module: str, layer: int | None) -> Mix:
        place = (name, module, layer)
        if place not in self._known:
            merge = self.recipe.merges[name]
            made = self._as_written(merge, name) if _varies(merge) else self._merged(name, module, layer)
            self._known[place] = made
        return self._known[place]

    def _merged(self, name: str, module: str, layer: int | None) -> Mix:
        merge = self.recipe.merges[name]
        method, base, sources = self._operation(merge, module, layer)
        if (mix := combined(method, base, sources)) is not None:
            return mix
        if "zero weight" in ignored_by(method):
            # only none at all: by an elected sign a tiny weight decides alone where the others have zeros
            sources = [each for each in sources if each.weight != 0]
            if not sources and base is not None and method.on == "deltas":
                return base
        term = self._term(name, method, base, sources)
        if survey_key_of(method) is not None:  # then each tensor depends on all of them
            term.append(self._surveyed(name))
        return {as_json(term): 1.0}

    def _operation(
        self, merge: Merge, module: str, layer: int | None
    ) -> tuple[MergeMethod, Mix | None, list[Source]]:
        """Return the method in force, the base if it uses one, and the sources."""
        method = _bound(merge, module, layer)
        base = self.at(merge.base, module, layer) if merge.base and method.base != "unused" else None
        statistic = statistic_of(type(method))
        sources = []
        for i, name in enumerate(merge.sources):
            ref = self.recipe.models.get(name)
            sources.append(
                Source(
                    mix=self.at(name, module, layer),
                    params=params_of(method, source=i),
                    weight=method.weight[i] if "weight" in declared(type(method)) else 1.0,
                    measured=_measured(ref, statistic) if ref and statistic else None,
                    drawn_by=name if ref else f"#{i}",
                )
            )
        return method, base, sources

    def _term(self, name: str, method: MergeMethod, base: Mix | None, sources: list[Source]) -> list[Any]:
        """Return as JSON values what a method makes of the sources, those aside that it does not look at."""
        read = [each.said for each in sources]
        draws = "seed" not in ignored_by(method)
        if draws:
            read = [[*one, each.drawn_by] for one, each in zip(read, sources, strict=True)]
        if "order" in ignored_by(method):
            read.sort(key=as_json)
        drawn = [self.recipe.seed, self._form(name)] if draws else None
        kind = self.recipe.merges[name].method
        return [kind, method.compat, base and said(base), params_of(method), read, drawn]

    def _surveyed(self, name: str) -> Any:
        """Return everything that a method sees that looks at the whole model."""

        def say(module: str, layer: int | None) -> Any:
            return self._term(name, *self._operation(self.recipe.merges[name], module, layer))

        return self._everywhere(name, None, say)

    def _as_written(self, merge: Merge, name: str) -> Mix:
        """Return a merge whose parameters go by depth or by the names of tensors, with all that it reads."""
        read = [
            [each, self.model(each) if each in self.recipe.models else self.whole(each, None)]
            for each in merge.models
        ]
        measured = [self.recipe.models[each].content for each in merge.sources if each in self.recipe.models]
        return {as_json([plain(merge), read, measured, self.recipe.seed, self._form(name)]): 1.0}

    def _form(self, name: str) -> Any:
        """Return the model whose names the tensors of a merge have; draws and filters go by them."""
        return self.model(self.recipe.read_by(name)[0])


def _measured(ref: ModelRef, statistic: Statistic) -> str | None:
    path, digest = ref.measured.get(statistic, (None, None))
    return digest or path


def _varies(merge: Merge) -> bool:
    """Return whether a parameter changes along the layers, or goes by the names of tensors."""
    tables = [merge.params, *(group.params for group in merge.groups)]
    settings = [value for params in tables for value in params.values()]
    return any(
        isinstance(value, tuple)
        for each in settings
        for value in (each.values() if isinstance(each, Mapping) else [each])
    )


def _bound(merge: Merge, module: str, layer: int | None) -> Any:
    """Return the method with the parameters in force, its defaults where nobody says."""
    settings: dict[str, Any] = {}
    for key, value in merge.settings("", layer, module, 1).items():
        if isinstance(value, Mapping):
            if set(value) != set(merge.sources):
                raise RecipeError(f"`{key}` needs one value per source, found some for {', '.join(value)}")
            settings[key] = tuple(value[source] for source in merge.sources)
        else:
            settings[key] = value
    kind = plugins.load("methods", merge.method)
    return bind(kind, settings, len(merge.sources), compat=merge.compat)
