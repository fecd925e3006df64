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
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from evomerge import plugins
from evomerge.errors import MergeError, RecipeError, RequestError
from evomerge.merge.method import Averaging, MergeMethod, ignored_by, statistic_of, survey_key_of
from evomerge.parameters import Gene, bind, declared
from evomerge.recipe import MODULES, Merge, Recipe
from evomerge.recipe.merge import IN_LAYERS
from evomerge.recipe.model import plain
from evomerge.types import Value

GRAIN = 1e-4
"""Weights of a sum this close together are the same."""

_SMALLEST_SUM = 1e-6
"""Weights that sum to less are not made shares of."""
_COARSE_FROM = 0.05
"""Smaller numbers count as they are: of them the grain would be no small part."""

Mix: TypeAlias = Mapping[str, float]
"""A linear combination: for each term, a model or what a method makes (as JSON), its coefficient."""


def canonical_key(recipe: Recipe, *, layers: int | None = None) -> str:
    """Return 32 hex digits that recipes share only if they build models that compute the same.

    `layers` is the number of the merged models' layers, where it is known: what would hold beyond the last
    one then counts for nothing.
    """
    try:
        content = _content(recipe, layers)
    except (RequestError, MergeError):
        content = ["as it is written", recipe.key]  # it cannot be built, which is for others to say
    return hashlib.sha256(_json(content).encode()).hexdigest()[:32]


def _content(recipe: Recipe, layers: int | None) -> Any:
    if recipe.tokenizer is not None:
        return ["as it is written", recipe.key]  # which tokens there are depends on every model
    terms = _Terms(recipe)
    made = terms.whole(recipe.embed_from, layers) if recipe.path is None else _stack(recipe, terms)
    return [terms.model(recipe.form_from), recipe.dtype, recipe.untie, made]


def _stack(recipe: Recipe, terms: _Terms) -> Any:
    """Return what a path is made of: each slot's modules, and the ends."""

    def of(name: str, module: str, layer: int | None) -> Any:
        return [layer, _said(terms.at(name, module, layer))]

    slots = [
        [
            _rounded(slot.scale, GRAIN),
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
            return {_json(self.model(name)): 1.0}
        return self._made(name, module, layer)

    def whole(self, merge: str, layers: int | None) -> Any:
        """Return what a merge is everywhere: by module runs of layers that are made alike."""
        return self._everywhere(merge, layers, lambda module, layer: _said(self._made(merge, module, layer)))

    def _everywhere(self, merge: str, layers: int | None, say: Callable[[str, int | None], Any]) -> Any:
        starts = sorted(start for start in self._starts(merge) if layers is None or start < layers)
        runs = {module: _runs([(start, say(module, start)) for start in starts]) for module in IN_LAYERS}
        return runs | {module: say(module, None) for module in MODULES if module not in IN_LAYERS}

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
        if (mix := _combined(method, base, sources)) is not None:
            return mix
        if "zero weight" in ignored_by(method):
            # only none at all: by an elected sign a tiny weight decides alone where the others have zeros
            sources = [each for each in sources if each.weight != 0]
            if not sources and base is not None and method.on == "deltas":
                return base
        said = self._term(name, method, base, sources)
        if survey_key_of(method) is not None:  # then each tensor depends on all of them
            said.append(self._surveyed(name))
        return {_json(said): 1.0}

    def _operation(
        self, merge: Merge, module: str, layer: int | None
    ) -> tuple[MergeMethod, Mix | None, list[_Source]]:
        """Return the method in force, the base if it uses one, and the sources."""
        method = _bound(merge, module, layer)
        base = self.at(merge.base, module, layer) if merge.base and method.base != "unused" else None
        statistic = statistic_of(type(method))
        sources = []
        for i, name in enumerate(merge.sources):
            ref = self.recipe.models.get(name)
            sources.append(
                _Source(
                    mix=self.at(name, module, layer),
                    params=_params(method, source=i),
                    weight=method.weight[i] if "weight" in declared(type(method)) else 1.0,
                    measured=ref.measured.get(statistic) if ref and statistic else None,
                    drawn_by=name if ref else f"#{i}",
                )
            )
        return method, base, sources

    def _term(self, name: str, method: MergeMethod, base: Mix | None, sources: list[_Source]) -> list[Any]:
        """Return as JSON values what a method makes of the sources, those aside that it does not look at."""
        said = [each.said for each in sources]
        draws = "seed" not in ignored_by(method)
        if draws:
            said = [[*one, each.drawn_by] for one, each in zip(said, sources, strict=True)]
        if "order" in ignored_by(method):
            said.sort(key=_json)
        drawn = [self.recipe.seed, self._form(name)] if draws else None
        kind = self.recipe.merges[name].method
        return [kind, method.compat, base and _said(base), _params(method), said, drawn]

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
        return {_json([plain(merge), read, measured, self.recipe.seed, self._form(name)]): 1.0}

    def _form(self, name: str) -> Any:
        """Return the model whose names the tensors of a merge have; draws and filters go by them."""
        return self.model(self.recipe.read_by(name)[0])


@dataclass(frozen=True, kw_only=True)
class _Source:
    """A source as its merge sees it; random draws know it by the name `drawn_by`."""

    mix: Mix
    params: dict[str, Value]
    weight: float
    measured: Any
    drawn_by: str

    @property
    def said(self) -> list[Any]:
        return [_said(self.mix), self.params, self.measured]


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


def _combined(method: Any, base: Mix | None, sources: list[_Source]) -> Mix | None:
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


def _params(method: Any, *, source: int | None = None) -> dict[str, Value]:
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
    rounded = _rounded(value, spec.grain)
    return value if rounded in (spec.least, spec.most) else rounded


def _rounded(value: float, grain: float) -> float:
    if not grain or abs(value) < _COARSE_FROM:
        return float(value)
    return round(value / grain) * grain


def _runs(said: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Return the first of each run of layers of which the same is said."""
    return [
        each for before, each in zip([None, *said], said, strict=False) if not before or before[1] != each[1]
    ]


def _said(mix: Mix) -> Any:
    """Return a mix as JSON values: its terms in order, those aside whose coefficient rounds to zero."""
    counts = {term: round(coefficient / GRAIN) for term, coefficient in mix.items()}
    return [[term, count] for term, count in sorted(counts.items()) if count]


def _json(content: Any) -> str:
    return json.dumps(content, sort_keys=True, separators=(",", ":"))
