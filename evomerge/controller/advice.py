"""Which sampler suits a space and a budget, and whether the budget suits the genes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from evomerge.archive.record import RunRecord
from evomerge.space.baselines import baselines

PER_GENE = 10
"""Candidates per gene below which CMA-ES has hardly learnt a covariance (Hansen, arXiv 1604.00772: its
learning rates are of the order of one over the squared number of genes)."""

_LEAST_PER_GENE = 3
_GP_GENES, _GP_BUDGET = 20, 100
_MANY_OBJECTIVES = 4
_GENERATIONS = 10


@dataclass(frozen=True, kw_only=True)
class Advice:
    """The sampler that a search has and the one that suits it, why, and what is unwise about the budget.

    `default` tells whether the space leaves the choice to evomerge; `choices` counts genes that choose among
    options, and `candidates` the budget less the baselines that every search begins with.
    """

    sampler: str
    default: bool
    suits: str
    why: str
    genes: int
    choices: int
    candidates: int
    warnings: tuple[str, ...]


def advice(record: RunRecord) -> Advice:
    """Return what to know of the sampler and the budget of a search."""
    space, genes = record.space, record.genome.genes
    choices = sum(gene.choices is not None for gene in genes)
    candidates = max(0, space.budget - len(baselines(record.genome)))
    suits, why = _suitable(
        genes=len(genes), choices=choices, candidates=candidates, objectives=len(record.objectives)
    )
    return Advice(
        sampler=space.sampler_choice.name,
        default=space.sampler is None,
        suits=suits,
        why=why,
        genes=len(genes),
        choices=choices,
        candidates=candidates,
        warnings=tuple(_warnings(record, candidates)),
    )


def _suitable(*, genes: int, choices: int, candidates: int, objectives: int) -> tuple[str, str]:
    """Return the name of the sampler that suits, and the reason as half a sentence."""
    if objectives >= _MANY_OBJECTIVES:
        return "nsgaiii", f"with {objectives} objectives most candidates dominate none, which it is made for"
    if objectives > 1:
        return "nsgaii", f"with {objectives} objectives it keeps a front of compromises"
    if 2 * choices > genes:
        return "tpe", f"{choices} of {genes} genes choose among options, which have no order to follow"
    ratio = candidates / genes
    if ratio >= PER_GENE:
        return "cma", f"{candidates} candidates are {ratio:.0f} per gene, and it learns from {PER_GENE} on"
    if genes <= _GP_GENES and candidates <= _GP_BUDGET:
        return "gp", f"{genes} genes have {ratio:.0f} candidates each, and it makes the most of few"
    return "cma", "most genes are numbers, and it was the best of those measured on such spaces"


def _warnings(record: RunRecord, candidates: int) -> Iterator[str]:
    genes, budget = len(record.genome.genes), record.space.budget
    name = record.space.sampler_choice.name
    if candidates == 0:
        yield (
            f"a budget of {budget} is spent on the baselines alone; set `budget` to at least "
            f"{budget + PER_GENE * genes}"
        )
    elif candidates < _LEAST_PER_GENE * genes and name != "qmc":
        yield (
            f"a budget of {budget} leaves {candidates} after the baselines, few for {genes} genes; raise "
            f"`budget` to about {budget - candidates + PER_GENE * genes}, or have fewer genes{_fewer(record)}"
        )
    elif name == "cma" and candidates < PER_GENE * genes:
        yield (
            f"CMA-ES wants about {PER_GENE} candidates per gene and has {candidates / genes:.1f}; raise "
            f"`budget` to about {budget - candidates + PER_GENE * genes}, or have fewer genes{_fewer(record)}"
        )
    elif name in ("nsgaii", "nsgaiii") and candidates < 20 * _GENERATIONS // 2:
        yield (
            f"{candidates} candidates are fewer than {_GENERATIONS // 2} generations of 20, so {name} hardly "
            "evolves; raise `budget`, or use `sampler: tpe`"
        )


def _fewer(record: RunRecord) -> str:
    """Return how a space comes to fewer genes."""
    space = record.space
    if not space.merges or space.path is not None:
        return ""
    return " (fewer runs in `merge.layers`, a fixed value in `merge.genes`)"
