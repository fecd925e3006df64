"""Small real searches to be killed, and the process that forks them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.killing import Forks
from tests.faults.searching import SPACE, Searched, few_items, lived


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    with Forks(tmp_path_factory.mktemp("forks")) as made:
        yield made


@pytest.fixture(scope="session")
def tasks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return few_items(tmp_path_factory.mktemp("zoo") / "tasks")


@pytest.fixture(scope="session")
def racing(forks: Forks, tasks: Path, tmp_path_factory: pytest.TempPathFactory) -> Searched:
    """An uninterrupted search with all there is: a race, heirs, select and report items."""
    return lived(forks, tmp_path_factory.mktemp("racing"), tasks, SPACE)
