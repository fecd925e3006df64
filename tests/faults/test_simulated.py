"""Simulated searches killed at instants all over their lives end as uninterrupted ones do."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from tests.faults.killing import End, Forks
from tests.faults.simulated import CASES, leavings

SEARCH = "tests.faults.simulated:search"
AT = (0.4, 0.47, 0.8)
"""Shares of a life at about which to kill: most of them where the first few are halved and go on."""


@pytest.fixture(scope="module")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks")) as made:
        yield made


def searched(forks: Forks, path: Path, name: str, kills: Sequence[int]) -> list[End]:
    """Search until it is done, killed at each of these instants of a sitting."""
    ends = [forks.run(SEARCH, str(path), name, at=kill) for kill in kills]
    if not kills or ends[-1].killed:
        ends.append(forks.run(SEARCH, str(path), name))
    assert ends[-1].code == 0, ends[-1].err
    return ends


@pytest.mark.parametrize("name", list(CASES))
def test_a_search_killed_at_any_instant_leaves_what_one_that_lived_does(
    forks: Forks, tmp_path: Path, name: str
) -> None:
    (lived,) = searched(forks, tmp_path / "lived", name, [])
    expected = leavings(tmp_path / "lived", name)
    draw = random.Random(name)
    plans = [[int(lived.instants * (share + draw.uniform(0.0, 0.04)))] for share in AT]
    plans.append([draw.randrange(1, lived.instants // 3) for _ in range(2)])
    for i, plan in enumerate(plans):
        ends = searched(forks, tmp_path / f"{i}", name, plan)
        assert ends[0].killed
        assert leavings(tmp_path / f"{i}", name) == expected, plan


def test_the_cases_have_what_is_hard_to_take_up(forks: Forks, tmp_path: Path) -> None:
    """Candidates that wait for others or for twins, who are audited, given up, and may yet turn out alike."""
    found = []
    for name in ("first few, twins and a failure", "first few and the like"):
        searched(forks, tmp_path / name, name, [])
        found += leavings(tmp_path / name, name)["trials"]
    attributes = [trial["attributes"] for trial in found]
    assert sum("waits" in each for each in attributes) > 10
    assert sum("twin_of" in each for each in attributes) > 5
    assert any("audited_against" in each for each in attributes)
    assert any(each["waits"]["alike"] for each in attributes if "waits" in each)
    assert {trial["state"] for trial in found} == {"COMPLETE", "PRUNED", "FAIL"}
