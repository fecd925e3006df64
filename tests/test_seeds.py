"""Derived seeds."""

import pytest

from evomerge.seeds import derive


def test_a_seed_does_not_change_between_versions() -> None:
    assert derive(0, "math", "model.norm.weight") == 1359424219475450420


def test_every_part_matters_and_its_place_too() -> None:
    names: list[tuple[str | int, ...]] = [(), ("a",), ("b",), ("a", "b"), ("b", "a"), ("ab",), (1,), ("a", 1)]
    seeds = {derive(seed, *parts) for seed in (0, 1) for parts in names}
    assert len(seeds) == 2 * len(names)


@pytest.mark.parametrize("seed", [0, -1, 2**64])
def test_seeds_fit_a_signed_64_bit_number(seed: int) -> None:
    assert 0 <= derive(seed, "name") < 2**63
