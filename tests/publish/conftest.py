"""A finished run of the zoo, its winner exported, and tiny models to be wrong about."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.archive.run import Run
from evomerge.controller.public import search
from evomerge.publish.public import export
from tests.cli.conftest import WORDS, command, save_llama

__all__ = ["command"]  # a fixture of the commands' tests


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    from tests.controller.conftest import ALL_SCORED

    folder = tmp_path_factory.mktemp("export")
    (folder / "small.yaml").write_text(ALL_SCORED)
    return search(folder / "small.yaml", run=folder / "run", serial=True, budget=10)


@pytest.fixture(scope="session")
def exported(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export(run, tmp_path_factory.mktemp("out") / "best")


@pytest.fixture
def models(tmp_path: Path) -> Path:
    """Return a folder of models: `math` and `lang` fit, the others differ from them as they are named."""
    folder = tmp_path / "models"
    for seed, name in enumerate(("math", "lang")):
        save_llama(folder / name, seed=seed)
    save_llama(folder / "permuted", seed=2, words=[*WORDS[:2], *reversed(WORDS[2:])])
    save_llama(folder / "wider", seed=3, words=[*WORDS, "perhaps"])
    return folder
