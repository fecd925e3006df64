"""Scores that are not as recorded: what the error says, and how to export all the same."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from evomerge.archive.run import Run
from evomerge.errors import ExportError, RequestError
from evomerge.publish.environment import differences, environment
from evomerge.publish.public import export

HERE: dict[str, Any] = {
    "started": "2025-01-02",
    "python": "3.11.7",
    "platform": "Linux",
    "versions": {"torch": "2.9.0", "optuna": "5.0"},
    "commit": "abc",
    "device": "cpu",
}


class Misremembering(Run):
    """A run whose record says another score than was found, and another torch."""

    def scores(self, number: int) -> dict[str, float]:
        return {name: score + 0.001 for name, score in super().scores(number).items()}


@pytest.fixture
def odd_run(run: Run) -> Run:
    versions = {**run.record.provenance["versions"], "torch": "1.0.0"}
    record = replace(run.record, provenance={**run.record.provenance, "versions": versions})
    return Misremembering(run.folder, record)


def test_a_score_that_differs_is_told_with_what_else_does(odd_run: Run, tmp_path: Path) -> None:
    with pytest.raises(ExportError) as caught:
        export(odd_run, tmp_path / "out")
    said = str(caught.value)
    torch = environment()["versions"]["torch"]
    assert "it was not kept" in said
    assert f"torch 1.0.0 there, {torch} here" in said
    assert "device" not in said.split("search was started")[1]  # the same one
    assert "`--no-verify`" in said
    assert "transformers" not in said
    assert list(tmp_path.iterdir()) == []


def test_without_verification_it_is_kept_and_the_card_says_so(odd_run: Run, tmp_path: Path) -> None:
    target = export(odd_run, tmp_path / "out", verify=False)
    card = (target / "README.md").read_text()
    assert "this checkpoint was not scored again" in card
    assert "same result" not in card


def test_a_verified_export_says_so(exported: Path) -> None:
    assert "was scored again on them, with the same result" in (exported / "README.md").read_text()


@pytest.mark.parametrize("options", [{"trial": 1}, {"best": "x"}, {"knee": True}, {"verify": False}])
def test_a_recipe_has_no_trials_and_no_score(run: Run, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="a recipe has neither trials nor scores"):
        export(run.recipe(1), tmp_path / "out", **options)
    assert list(tmp_path.iterdir()) == []


def test_the_same_environment_does_not_differ() -> None:
    assert differences(HERE, {**HERE, "started": "2025-02-03"}) == []


def test_what_scores_do_not_depend_on_does_not_differ() -> None:
    assert differences(HERE, {**HERE, "versions": {"torch": "2.9.0", "optuna": "6.0"}}) == []


def test_every_difference_is_a_phrase() -> None:
    there = {**HERE, "versions": {"torch": "2.8.0"}, "platform": "Darwin", "commit": None}
    del there["device"]
    assert differences(there, HERE) == [
        "device not recorded there, cpu here",
        "torch 2.8.0 there, 2.9.0 here",
        "evomerge commit not recorded there, abc here",
        "platform Darwin there, Linux here",
    ]
