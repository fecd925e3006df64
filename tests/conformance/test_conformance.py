"""Everything that reference implementations of merging gave numbers for gives those numbers here.

`pytest tests/conformance --vectors DIR` runs the cases of another folder; README.md says what they are.
"""

from collections.abc import Callable, Mapping

import pytest

from evomerge.errors import EvomergeError
from tests.conformance import layers, measures, merges, sources
from tests.conformance.cases import Case, assert_close, keys, read_cases
from tests.conformance.conftest import HERE


def test_case(case: Case) -> None:
    run = layers.loads if case.method == "fixture" else KINDS[case.kind]
    run(case)


def output(case: Case, name: str) -> object:
    if merges.is_merge(case.method):
        return merges.output(case, name)
    return OTHERS[case.method](case, name)


OTHERS: Mapping[str, Callable[[Case, str], object]] = {
    "block_influence": layers.influence,
    "crash_cluster": layers.clusters,
    "embed_align": sources.embeddings,
    "fisher_diag": measures.fisher,
    "greedy_soup": measures.soup,
    "layer_cluster": layers.clusters,
    "layer_gradient": measures.gradient,
    "lora_source": sources.adapter,
    "regmean_gram": measures.gram_matrix,
    **dict.fromkeys(layers.RECIPES, layers.stack),
}
"""Cases that are no merges of weights."""


def gives_the_expected_numbers(case: Case) -> None:
    assert case.expected
    for name, want in case.expected.items():
        assert_close(output(case, name), want, case)


def is_refused(case: Case) -> None:
    assert case.params.get("must_raise", True) is True
    with pytest.raises(EvomergeError):
        output(case, "merged")


def is_finite(case: Case) -> None:
    assert merges.is_finite(output(case, next(iter(case.expected or {"merged": None}))))


KINDS: Mapping[str, Callable[[Case], None]] = {
    "deterministic": gives_the_expected_numbers,
    "mask_given": gives_the_expected_numbers,
    "spec": gives_the_expected_numbers,
    "names": sources.names_of,
    "finite": is_finite,
    "statistical": merges.drops_at_the_stated_rate,
    "error": is_refused,
}


def test_every_array_of_ours_belongs_to_a_case() -> None:
    cases = read_cases(HERE)
    named = {key for case in cases for part in PARTS for key in keys(case.entry[part])}
    assert named == set(cases[0].arrays)


PARTS = ("base", "models", "aux", "expected")
