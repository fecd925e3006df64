"""Genes as points of the unit cube, and back."""

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from evomerge.controller.unit_cube import UnitCube
from evomerge.space import GeneSpec
from evomerge.testing.samplers import MIXED

NUMBER = GeneSpec(name="n", low=-0.5, high=1.5, start=1.0)
LOG = GeneSpec(name="l", low=0.01, high=1.0, log=True, start=0.1)
WHOLE = GeneSpec(name="i", low=1, high=3, whole=True, start=2)
WORD = GeneSpec(name="w", choices=("a", "b", "c"), start="b")


def decoded(gene: GeneSpec, *x: float) -> object:
    return UnitCube([gene]).decode(np.array(x))[gene.name]


def test_a_number_takes_one_coordinate_and_a_choice_one_per_option() -> None:
    assert UnitCube([NUMBER, LOG, WORD]).size == 5
    assert UnitCube([]).size == 0


@pytest.mark.parametrize(("x", "value"), [(0.0, -0.5), (0.5, 0.5), (0.75, 1.0), (1.0, 1.5)])
def test_a_number_is_scaled_to_its_range(x: float, value: float) -> None:
    assert decoded(NUMBER, x) == value


@pytest.mark.parametrize(("x", "value"), [(0.0, 0.01), (0.5, 0.1), (1.0, 1.0)])
def test_a_logarithmic_number_is_scaled_by_factors(x: float, value: float) -> None:
    assert decoded(LOG, x) == pytest.approx(value)


@pytest.mark.parametrize(("x", "value"), [(0.0, 1), (0.33, 1), (0.34, 2), (0.66, 2), (0.67, 3), (1.0, 3)])
def test_whole_numbers_share_the_range_equally(x: float, value: int) -> None:
    found = decoded(WHOLE, x)
    assert type(found) is int
    assert found == value


def test_a_search_starts_in_the_middle_of_what_a_whole_number_has() -> None:
    assert UnitCube([WHOLE]).start == [0.5]


@pytest.mark.parametrize(
    ("x", "value"), [((0.2, 0.3, 0.1), "b"), ((0.9, 0.3, 0.1), "a"), ((0.5, 0.5, 0.5), "a"), ((0, 0, 1), "c")]
)
def test_the_option_with_the_greatest_coordinate_wins(x: tuple[float, ...], value: str) -> None:
    assert decoded(WORD, *x) == value


def test_an_option_keeps_its_type() -> None:
    gene = GeneSpec(name="w", choices=(1, True, "1"), start=True)
    assert decoded(gene, 0, 1, 0) is True
    assert decoded(gene, 0, 0, 1) == "1"


def test_genes_read_their_own_coordinates_in_order() -> None:
    cube = UnitCube([NUMBER, WORD, LOG])
    assert cube.decode(np.array([1.0, 0, 0, 1, 0.0])) == {"n": 1.5, "w": "c", "l": pytest.approx(0.01)}


@pytest.mark.parametrize("genes", [[NUMBER], [LOG], [WORD], [NUMBER, WORD, LOG], list(MIXED)])
def test_the_start_decodes_to_the_starting_values(genes: list[GeneSpec]) -> None:
    cube = UnitCube(genes)
    assert len(cube.start) == cube.size
    found = cube.decode(np.array(cube.start))
    assert {k: pytest.approx(v) for k, v in found.items()} == {gene.name: gene.start for gene in genes}


@given(st.lists(st.floats(0, 1), min_size=8, max_size=8))
def test_every_point_of_the_cube_lies_in_the_space(x: list[float]) -> None:
    params = UnitCube(MIXED).decode(np.array(x))
    for gene in MIXED:
        value = params[gene.name]
        if gene.choices is not None:
            assert value in gene.choices
        else:
            assert gene.low <= float(value) <= gene.high


@given(st.floats(1e-6, 1e3), st.floats(1.001, 1e6), st.floats(0, 1))
def test_rounding_never_leaves_a_range(low: float, factor: float, x: float) -> None:
    for log in (False, True):
        gene = GeneSpec(name="g", low=low, high=low * factor, log=log, start=low)
        assert low <= float(UnitCube([gene]).decode(np.array([x]))["g"]) <= low * factor
