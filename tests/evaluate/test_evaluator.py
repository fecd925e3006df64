"""A score depends on the recipe alone, not on what the evaluator saw before."""

from __future__ import annotations

import gc
import json
import shutil
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from evomerge.checkpoints.locate import ZOO
from evomerge.controller.setup import resolve
from evomerge.evaluate.evaluator import Evaluator
from evomerge.evaluate.items import SPLITS
from evomerge.merge import memory
from evomerge.merge.memory import build_model
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


def test_the_last_models_tensors_are_gone_before_another_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker holds one model's. Where it comes from does not make it another; a longer context does."""
    renamed, longer = tmp_path / "renamed", tmp_path / "longer"
    for folder, changed in ((renamed, {"_name_or_path": "else"}), (longer, {"max_position_embeddings": 256})):
        shutil.copytree(ZOO / "models" / "math", folder)
        config = json.loads((folder / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**config, **changed}))
    file = tmp_path / "space.yaml"
    sources = "sources: {base: zoo:base, math: zoo:math, lang: zoo:lang}"
    assert sources in SPACE
    file.write_text(SPACE.replace(sources, f"sources: {{base: zoo:base, one: {renamed}, other: {longer}}}"))
    record = resolve(read_space(file))
    recipes = {baseline.label: baseline.recipe for baseline in baselines(record.genome)}
    built: list[weakref.ref[Any]] = []
    held: list[int] = []

    def building(*arguments: Any) -> Any:
        gc.collect()
        living = [model for each in built if (model := each()) is not None]
        held.append(sum(each.untyped_storage().nbytes() for model in living for each in model.parameters()))
        model = build_model(*arguments)
        built.append(weakref.ref(model))
        return model

    monkeypatch.setattr(memory, "build_model", building)
    evaluator = Evaluator(record.brief())
    for label in ("base", "parent one", "parent other", "base"):
        assert isinstance(evaluator.evaluate(recipes[label]), Scored)
    evaluator.close()
    assert len(held) == 2  # base and other: the renamed one took the base's place, then the base its own
    assert max(held) < 1000  # bytes: a number for each parameter


def test_held_out_measures_are_read_on_report_items_only(tmp_path: Path) -> None:
    """One is of a task that is not asked before, the other another number of the task searched on."""
    file = tmp_path / "space.yaml"
    text = SPACE.replace("{task: math_b, metric: acc}", "{task: word_b, metric: acc}")
    file.write_text(text + "held_out: [{task: math_b}, {task: word_b, metric: perplexity}]\n")
    record = resolve(read_space(file))
    evaluator = Evaluator(record.brief())
    recipe = next(each.recipe for each in baselines(record.genome) if each.label == "parent math")
    found = {split: evaluator.evaluate(recipe, split) for split in SPLITS}
    evaluator.close()
    for split, result in found.items():
        assert isinstance(result, Scored)
        held_out = {"math_b", "word_b_perplexity"} if split == "report" else set()
        assert result.scores.keys() == {"word_b_acc"} | held_out
        asked = {items.task: items.items for items in result.items}
        assert asked == {task: tuple(splits[split]) for task, splits in record.items.items() if splits[split]}
