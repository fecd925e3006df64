"""Merges of different vocabularies, searched and written: the folder is the scored model with its words."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer

from evomerge import search
from evomerge.archive.run import Run
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.checkpoints.tensors import open_library
from evomerge.errors import RequestError
from evomerge.merge.memory import ResidentModel
from evomerge.merge.planning import compile_plan
from evomerge.publish.checkpoint import write_checkpoint
from evomerge.publish.public import export
from evomerge.recipe import Merge, ModelRef, Recipe, from_yaml
from tests.checkpoints.making import (
    ENGLISH,
    GERMAN,
    byte_bpe,
    edit_config,
    save_model,
    special,
    unigram,
    word_level,
)
from tests.cli.conftest import WORDS, save_llama, save_task
from tests.publish.staging import next_search

SPACE = """\
sources: {base: models/base, math: models/math, lang: models/lang}
merge: {base: base, layers: 1, method: [task_arithmetic, linear]}
objectives: [{task: tiny}]
tasks: tasks
items: {search: 4, report: 4}
sampler: random
budget: 8
tokenizer: union
inherit: false
"""  # models that nobody trained would be taken for broken


def trained(kind: str) -> list[Tokenizer]:
    """Return three tokenizers of a kind; the last has a special token and another of its own."""
    if kind == "words":
        cores = [word_level(sorted(set(" ".join(texts).split()))) for texts in (ENGLISH, ENGLISH[:1], GERMAN)]
    else:
        train = byte_bpe if kind == "byte_bpe" else unigram
        cores = [train(texts) for texts in (ENGLISH, ENGLISH[:1], GERMAN)]
    cores[2].add_special_tokens([special("<call>")])
    cores[2].add_tokens(["<list>"])
    return cores


@pytest.fixture(params=["byte_bpe", "unigram", "words"])
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> dict[str, Path]:
    cores = trained(request.param)
    names = ("base", "math", "lang")
    for seed, (name, core) in enumerate(zip(names, cores, strict=True)):
        save_model(tmp_path / name, core, seed=seed, rows=64 * (seed + 5))
        (tmp_path / name / "chat_template.jinja").write_text(f"{{# of {name} #}}")
    return {name: tmp_path / name for name in names}


def recipe(folders: dict[str, Path], tokenizer: str) -> Recipe:
    merge = Merge(method="ties", base="base", sources=("math", "lang"), params={"density": 0.6})
    models = {name: ModelRef(source=str(path)) for name, path in folders.items()}
    return Recipe(models=models, merges={"m": merge}, tokenizer=tokenizer)


@pytest.mark.parametrize("tokenizer", ["base", "union", "lang"])
def test_the_folder_is_the_model_in_memory_with_the_words_it_was_scored_in(
    tokenizer: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    asked = recipe(folders, tokenizer)
    target = write_checkpoint(asked, tmp_path / "out")
    checkpoints = {name: open_checkpoint(path) for name, path in folders.items()}
    library = open_library(checkpoints, checkpoints)
    plan = compile_plan(asked, checkpoints)
    live = ResidentModel(library, device=torch.device("cpu")).load(plan)
    assert plan.tokenizer is not None
    with plan.tokenizer.placed() as place:
        scored = AutoTokenizer.from_pretrained(place)
    loaded: Any = AutoModelForCausalLM.from_pretrained(target)
    words = AutoTokenizer.from_pretrained(target)
    assert words.get_vocab() == scored.get_vocab()
    assert loaded.config.vocab_size == loaded.get_input_embeddings().weight.shape[0]
    assert max(words.get_vocab().values()) < loaded.config.vocab_size
    for text in (*ENGLISH, *GERMAN, "the<call>cat <list>"):
        ids = torch.tensor([words.encode(text)])
        assert ids.tolist() == [scored.encode(text)]
        with torch.inference_mode():
            assert torch.equal(loaded(ids).logits, live(ids).logits)
    library.close()


@pytest.mark.parametrize(("tokenizer", "owner"), [("base", "base"), ("union", "base"), ("lang", "lang")])
def test_the_files_are_the_tokenizers_and_the_ids_those_of_its_model(
    tokenizer: str, owner: str, folders: dict[str, Path], tmp_path: Path
) -> None:
    edit_config(folders["lang"], "generation_config.json", eos_token_id=[1, 2])
    edit_config(folders["lang"], eos_token_id=2)
    edit_config(folders["base"], "generation_config.json", temperature=0.5, do_sample=True)
    target = write_checkpoint(recipe(folders, tokenizer), tmp_path / "out")
    same = (target / "tokenizer.json").read_bytes() == (folders[owner] / "tokenizer.json").read_bytes()
    assert same is (tokenizer != "union")
    assert (target / "chat_template.jinja").read_text() == f"{{# of {owner} #}}"
    generation = json.loads((target / "generation_config.json").read_text())
    assert generation["temperature"] == 0.5
    own_generation = json.loads((folders[owner] / "generation_config.json").read_text())
    assert generation["eos_token_id"] == own_generation["eos_token_id"]
    assert (generation["eos_token_id"] == [1, 2]) is (owner == "lang")
    config = json.loads((target / "config.json").read_text())
    own = json.loads((folders[owner] / "config.json").read_text())
    assert {key: config[key] for key in own if key.endswith("_token_id")} == {
        key: own[key] for key in own if key.endswith("_token_id")
    }
    assert from_yaml((target / "recipe.yaml").read_text()).tokenizer == tokenizer


def test_union_of_byte_level_and_sentencepiece_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    save_model(tmp_path / "base", byte_bpe(ENGLISH), seed=0)
    save_model(tmp_path / "math", unigram(ENGLISH), seed=1)
    save_model(tmp_path / "lang", unigram(GERMAN), seed=2)
    folders = {name: tmp_path / name for name in ("base", "math", "lang")}
    with pytest.raises(RequestError, match="`tokenizer: union` of `base` and `lang` is impossible"):
        write_checkpoint(recipe(folders, "union"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a task and three models, the last with other words."""
    folder = tmp_path_factory.mktemp("words")
    for seed, name in enumerate(["base", "math"]):
        save_llama(folder / "models" / name, seed=seed)
    save_llama(folder / "models" / "lang", seed=2, words=[*WORDS[:2], *reversed(WORDS[2:-1]), "oui", "non"])
    save_task(folder / "tasks")
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    (place / "space.yaml").write_text(SPACE)
    return search(place / "space.yaml", run=place / "run", serial=True)


def test_a_search_scores_every_candidate_in_the_words_of_the_union(run: Run) -> None:
    trials = run.trials()
    assert list(trials["state"].unique()) == ["scored"]
    assert {run.recipe(number).tokenizer for number in trials.index[5:]} == {"union"}
    parents = trials[trials["baseline"].isin(["base", "parent math", "parent lang"])]
    assert [run.recipe(number).tokenizer for number in parents.index] == [None] * 3


def test_an_export_scores_what_the_search_recorded(run: Run, tmp_path: Path) -> None:
    searched = max(run.trials().index)
    target = export(run, tmp_path / "out", trial=searched)
    words = AutoTokenizer.from_pretrained(target)
    assert words.tokenize("the cat sat oui no") == ["the", "cat", "sat", "oui", "no"]
    assert len(words) == len(WORDS) + 2


def test_a_trial_with_the_words_of_the_union_is_a_source_of_the_next_search(
    run: Run, place: Path, tmp_path: Path
) -> None:
    text = SPACE.replace("models/", f"{place}/models/").replace("tasks: tasks", f"tasks: {place / 'tasks'}")
    text = text.replace(f"math: {place}/models/math", "best: RUN")
    target = next_search(run, max(run.trials().index), text, tmp_path)
    assert len(AutoTokenizer.from_pretrained(target)) == len(WORDS) + 2


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("", r"sources\.lang.*match their tokens with `tokenizer: base`, `union` or a model's name"),
        ("tokenizer: bases", r"space2\.yaml:8: `tokenizer` is unknown: no tokenizer named `bases`.*`base`"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_line(key: str, message: str, place: Path) -> None:
    (place / "space2.yaml").write_text(SPACE.replace("tokenizer: union", key))
    with pytest.raises(RequestError, match=message):
        search(place / "space2.yaml", run=place / "none", serial=True)
    assert not (place / "none").exists()
