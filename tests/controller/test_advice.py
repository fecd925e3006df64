"""Which sampler is said to suit, and when a budget is said to be small."""

from __future__ import annotations

from dataclasses import replace

import pytest

from evomerge.archive.record import RunRecord
from evomerge.controller.advice import advice
from evomerge.space import parse_space
from tests.controller.handmade import measure, record_of

BASIC = """\
sources: {base: b, math: m, lang: l}
merge: {base: base, layers: LAYERS, genes: GENES}
objectives: [{task: t}]
budget: BUDGET
"""


def record(
    *, layers: int = 1, budget: int = 200, genes: str = "{}", sampler: str = "", objectives: int = 1
) -> RunRecord:
    """Return the record of a search with six genes per run of layers but for ends, and so on."""
    text = BASIC.replace("LAYERS", str(layers)).replace("GENES", genes).replace("BUDGET", str(budget))
    text += f"sampler: {sampler}\n" if sampler else ""
    names = [f"t{i}" for i in range(objectives)]
    tasks = ", ".join(f"{{task: {name}}}" for name in names)
    made = record_of([measure(name) for name in names], {"search": 9, "select": 9, "report": 9})
    return replace(made, layers=32, space=parse_space(text.replace("{task: t}", tasks)))


def test_cma_suits_numbers_with_enough_candidates() -> None:
    found = advice(record())
    assert (found.sampler, found.default, found.suits) == ("cma", True, "cma")
    assert (found.genes, found.candidates) == (6, 195)
    assert found.why.startswith("195 candidates are 32 per gene")
    assert found.warnings == ()


def test_few_candidates_per_gene_are_warned_of_with_the_number_to_set() -> None:
    found = advice(record(layers=16, sampler="cma"))  # 36 genes
    (warning,) = found.warnings
    assert "CMA-ES wants about 10 candidates per gene and has 5.4" in warning
    assert "`budget` to about 365" in warning
    assert "fewer runs in `merge.layers`" in warning
    (hopeless,) = advice(record(layers=32, sampler="tpe", budget=50)).warnings
    assert "a budget of 50 leaves 45 after the baselines, few for 68 genes" in hopeless


def test_a_budget_that_baselines_eat_is_said() -> None:
    (warning,) = advice(record(budget=5)).warnings
    assert "spent on the baselines alone" in warning


def test_choices_suit_tpe_few_candidates_gp_and_many_objectives_nsga() -> None:
    listed = advice(record(genes="{weight: [0.5, 1.0]}"))
    assert listed.suits == "tpe"
    assert listed.choices == listed.genes
    assert advice(record(budget=50)).suits == "gp"
    assert advice(record(objectives=2)).suits == "nsgaii"
    assert advice(record(objectives=4)).suits == "nsgaiii"
    (few,) = advice(record(objectives=2, budget=60)).warnings
    assert "hardly evolves" in few


@pytest.mark.parametrize("objectives", [1, 2])
def test_the_default_sampler_is_called_so(objectives: int) -> None:
    assert advice(record(objectives=objectives)).default
    assert not advice(record(objectives=objectives, sampler="tpe")).default
