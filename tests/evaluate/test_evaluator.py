"""A score depends on the recipe alone, not on what the evaluator saw before."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from evomerge.checkpoints.locate import ZOO
from evomerge.controller.setup import resolve
from evomerge.evaluate.evaluator import Evaluator
from evomerge.recipe import Recipe
from evomerge.space import read_space
from evomerge.space.baselines import baselines
from evomerge.types import Scored
from tests.controller.conftest import SPACE


@pytest.fixture
def other_words(tmp_path: Path) -> Iterator[tuple[Evaluator, Evaluator, dict[str, Recipe]]]:
    """Return two fresh evaluators, and the baselines of a space whose maths expert reads otherwise.

    Its tokenizer has the same vocabulary but reads `ima` as a word it does not know.
    """
    expert = tmp_path / "math"
    shutil.copytree(ZOO / "models" / "math", expert)
    tokenizer = json.loads((expert / "tokenizer.json").read_text())
    tokenizer["normalizer"] = {"type": "Replace", "pattern": {"String": "ima"}, "content": "never"}
    (expert / "tokenizer.json").write_text(json.dumps(tokenizer))
    file = tmp_path / "space.yaml"
    file.write_text(SPACE.replace("zoo:math", str(expert)))
    record = resolve(read_space(file))
    recipes = {baseline.label: baseline.recipe for baseline in baselines(record.genome)}
    evaluators = Evaluator(record.brief()), Evaluator(record.brief())
    yield *evaluators, recipes
    for evaluator in evaluators:
        evaluator.close()


def test_each_recipe_is_asked_in_the_words_of_its_own_template(
    other_words: tuple[Evaluator, Evaluator, dict[str, Recipe]],
) -> None:
    one, other, recipes = other_words
    answers = {}
    for evaluator, order in ((one, ("base", "parent math")), (other, ("parent math", "base"))):
        for label in order:
            found = evaluator.evaluate(recipes[label])
            assert isinstance(found, Scored)
            answers[evaluator, label] = found.items
    assert answers[one, "base"] == answers[other, "base"]
    assert answers[one, "parent math"] == answers[other, "parent math"]
