"""A search over LLMs and a model that sees exports a model that sees, held to its recorded score."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoTokenizer, LlavaForConditionalGeneration

from evomerge.archive.run import Run
from evomerge.checkpoints.language import language_names
from evomerge.controller.public import search
from evomerge.publish.public import export
from evomerge.recipe import from_yaml
from tests.controller.conftest import ALL_SCORED
from tests.publish.staging import next_search
from tests.seeing import seeing_expert

PARENTS = ("base", "parent eyes", "parent lang")


@pytest.fixture(scope="module")
def seeing_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("seeing")
    seeing_expert(folder / "eyes")
    sources = "sources: {base: zoo:base, math: zoo:math, lang: zoo:lang}"
    assert sources in ALL_SCORED
    space = ALL_SCORED.replace(sources, "sources: {base: zoo:base, eyes: eyes, lang: zoo:lang}")
    (folder / "space.yaml").write_text(space)
    return search(folder / "space.yaml", run=folder / "run", serial=True, budget=7)


def test_every_candidate_sees_parents_included(seeing_run: Run) -> None:
    trials = seeing_run.trials()
    assert set(PARENTS) <= set(trials["baseline"])
    assert set(trials["state"]) == {"scored"}
    assert {seeing_run.recipe(number).form_from for number in trials["trial"]} == {"eyes"}


@pytest.mark.parametrize("parent", PARENTS)
def test_an_export_is_the_model_that_was_scored(seeing_run: Run, parent: str, tmp_path: Path) -> None:
    """Verified against its record; all but the language tower is that of the model that sees."""
    trials = seeing_run.trials()
    number = int(trials[trials["baseline"] == parent]["trial"].iloc[0])
    target = export(seeing_run, tmp_path / "out", trial=number)
    eyes = Path(seeing_run.record.paths["eyes"])
    before, found = (load_file(folder / "model.safetensors") for folder in (eyes, target))
    names = language_names(found, {"model_type": "llava"})
    same = {name for name in found if torch.equal(found[name], before[name].float())}
    copied = {name for name, plain in names.items() if plain is None}
    assert same == (set(found) if parent == "parent eyes" else copied)
    for file in ("processor_config.json", "preprocessor_config.json", "tokenizer.json"):
        assert (target / file).read_bytes() == (eyes / file).read_bytes()
    assert from_yaml((target / "recipe.yaml").read_text()).key == seeing_run.recipe(number).key


def test_a_trial_that_sees_is_a_source_of_the_next_search(seeing_run: Run, tmp_path: Path) -> None:
    text = ALL_SCORED.replace("math: zoo:math", "best: RUN")
    target = next_search(seeing_run, seeing_run.best(), text, tmp_path)
    assert isinstance(AutoModelForImageTextToText.from_pretrained(target), LlavaForConditionalGeneration)


def test_what_is_exported_looks_at_an_image(seeing_run: Run, tmp_path: Path) -> None:
    target = export(seeing_run, tmp_path / "out")
    model: Any = AutoModelForImageTextToText.from_pretrained(target)
    image = AutoTokenizer.from_pretrained(target).convert_tokens_to_ids("<image>")
    words = torch.tensor([[1, *[image] * 4, 7]])
    with torch.no_grad():
        one, other = (
            model(input_ids=words, pixel_values=torch.full((1, 3, 8, 8), x)).logits for x in (0, 1.0)
        )
    assert not torch.equal(one, other)
