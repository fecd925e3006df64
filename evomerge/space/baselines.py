"""The models every search is measured against; they are its first trials."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from evomerge import plugins
from evomerge.merge.soup import Soup, greedy
from evomerge.parameters import declared
from evomerge.recipe import Recipe
from evomerge.space.genome import Genome
from evomerge.types import Params, Value

BASE, AVERAGE, TASK_ARITHMETIC = "base", "uniform average", "task arithmetic"
_SOUP, _AND = "soup of ", ", "


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """A model to compare with; `params` is the point of the space that is the same model, if any."""

    label: str
    recipe: Recipe
    params: Params | None


def baselines(genome: Genome) -> tuple[Baseline, ...]:
    """Return the base, every parent, the uniform average and plain task arithmetic."""
    return tuple(_baselines(genome))


def parent(name: str) -> str:
    """Return the label of a source as a baseline."""
    return f"parent {name}"


def baseline(genome: Genome, label: str) -> Baseline:
    """Return the baseline of this label. Raises `KeyError` if the space has none such."""
    if label.startswith(_SOUP):
        return _soup(genome, label.removeprefix(_SOUP).split(_AND))
    return {each.label: each for each in baselines(genome)}[label]


@dataclass(frozen=True, kw_only=True)
class SoupStep:
    """How far a greedy soup is: the label of the average to score next, or the soup and its label."""

    label: str
    soup: Soup | None = None


def greedy_soup(genome: Genome, scores: Mapping[str, float | None]) -> SoupStep | None:
    """Return the next step of the greedy soup; None if none is asked for, or can be had (yet).

    `scores` are those of the baselines finished so far by label, higher is better, None for a failure.
    """
    parents = {name: parent(name) for name in genome.space.merged}
    wanted = "greedy_soup" in genome.space.baselines
    if not wanted or any(label not in scores for label in (*parents.values(), AVERAGE)):
        return None
    if all(scores[label] is None for label in parents.values()):
        return None
    tasting = greedy({name: scores[label] for name, label in parents.items()})
    answer: float | None = None
    while True:
        try:
            label = _average_label(genome, tasting.send(answer))
        except StopIteration as done:
            return SoupStep(label=_average_label(genome, done.value.ingredients), soup=done.value)
        if label not in scores:
            return SoupStep(label=label)
        answer = scores[label]


def _average_label(genome: Genome, names: Sequence[str]) -> str:
    """Return the baseline that is the plain average of the sources `names`."""
    if len(names) == 1:
        return parent(names[0])
    if set(names) == set(genome.space.merged):
        return AVERAGE
    return f"{_SOUP}{_AND.join(names)}"


def _soup(genome: Genome, names: Sequence[str]) -> Baseline:
    sources = tuple(names)
    recipe = genome.recipe("linear", params={"weight": 1.0, "normalize": True}, sources=sources)
    weights = {name: float(name in sources) / len(sources) for name in genome.space.merged}
    label = f"{_SOUP}{_AND.join(names)}"
    if genome.space.tokenizer is not None:  # tokens that no ingredient has are other ones in the space
        return Baseline(label=label, recipe=recipe, params=None)
    return Baseline(label=label, recipe=recipe, params=additive_point(genome, weights))


def _baselines(genome: Genome) -> Iterator[Baseline]:
    base, sources = genome.space.merge.base, genome.space.merged
    if base is not None:
        yield _alone(genome, BASE, base, dict.fromkeys(sources, 0.0))
    for name in genome.space.parents:
        if name != base:
            weights = {source: float(source == name) for source in sources}
            yield _alone(genome, parent(name), name, weights)
    if len(sources) > 1:
        average = genome.recipe("linear", params={"weight": 1.0, "normalize": True})
        weights = dict.fromkeys(sources, 1.0 / len(sources))
        yield Baseline(label=AVERAGE, recipe=average, params=additive_point(genome, weights))
    if base is not None:
        summed = genome.recipe("task_arithmetic", params={"weight": 1.0})
        weights = dict.fromkeys(sources, 1.0)
        yield Baseline(label=TASK_ARITHMETIC, recipe=summed, params=additive_point(genome, weights))


def _alone(genome: Genome, label: str, model: str, weights: Mapping[str, float]) -> Baseline:
    if genome.starts_with(model):
        return Baseline(label=label, recipe=genome.decode(genome.start), params=genome.start)
    recipe = genome.recipe("linear", params={"weight": 1.0}, sources=(model,))
    if genome.space.tokenizer is not None:  # alone it has its own tokenizer, and no point of the space that
        return Baseline(label=label, recipe=recipe, params=None)
    return Baseline(label=label, recipe=recipe, params=additive_point(genome, weights))


def additive_point(genome: Genome, weights: Mapping[str, float]) -> Params | None:
    """Return the genes' values at which the space yields base plus Σ wᵢ δᵢ, or None if none do."""
    if genome.space.path is not None:
        return None
    for name in genome.space.merge.methods:
        settings = plugins.load("methods", name).additive
        if settings is None or not _fixed_fits(genome, name, settings):
            continue
        point = {gene.name: _wanted(gene.name, name, settings, weights, gene.start) for gene in genome.genes}
        inside = all(
            point[gene.name] in gene.choices
            if gene.choices is not None
            else gene.low <= float(point[gene.name]) <= gene.high
            for gene in genome.genes
        )
        if inside and _weights_searched(genome):
            return point
    return None


def _wanted(
    gene: str, method: str, settings: Mapping[str, Value], weights: Mapping[str, float], idle: Value
) -> Value:
    """Return the value a gene must have: the method, a source's weight, a neutral setting, or any."""
    if gene == "method":
        return method
    parameter, _, place = gene.partition("/")
    if parameter == "weight":
        return weights[place.partition("/")[0]]
    return settings.get(parameter, idle)


def _fixed_fits(genome: Genome, method: str, settings: Mapping[str, Value]) -> bool:
    """Return whether the parameters the space fixes have the neutral settings."""
    kind = plugins.load("methods", method)
    own, compat = declared(kind), genome.compat(kind)
    searched = {gene.name.partition("/")[0] for gene in genome.genes}
    fixed = genome.space.merge.genes
    return all(
        name in searched or fixed.get(name, own[name].default(compat)) == value
        for name, value in settings.items()
    )


def _weights_searched(genome: Genome) -> bool:
    return any(gene.name.startswith("weight/") for gene in genome.genes)
