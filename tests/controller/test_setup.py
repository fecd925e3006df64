"""Models that a path cannot take layers from are refused before anything is made, however rarely it would."""

from pathlib import Path

import pytest

from evomerge.controller.setup import resolve
from evomerge.errors import RecipeError
from evomerge.space import read_space
from tests.cli.conftest import WORDS, edit_config, save_llama, save_task, save_tokenizer
from tests.merge.families import save_random_model
from tests.seeing import seeing_expert

SPACE = """\
sources: {math: math, lang: lang}
path: PATH
objectives: [{task: tiny}]
tasks: tasks
items: {search: 4, report: 4}
"""


def refusal(folder: Path, path: str, text: str = SPACE) -> str:
    """Return what is said of a space of the models in a folder."""
    (folder / "space.yaml").write_text(text.replace("PATH", path), encoding="utf-8")
    with pytest.raises(RecipeError) as caught:
        resolve(read_space(folder / "space.yaml"))
    return str(caught.value)


@pytest.mark.parametrize("form", ["slots", "blocks"])
def test_layers_of_other_rotary_positions(form: str, tmp_path: Path) -> None:
    """Most candidates have none of that model's layers."""
    for seed, name in enumerate(("math", "lang")):
        save_llama(tmp_path / name, seed=seed, layers=8)
    edit_config(tmp_path / "lang", rope_parameters={"rope_type": "default", "rope_theta": 500000.0})
    save_task(tmp_path / "tasks")
    said = refusal(tmp_path, f"{{form: {form}, repeats: 1}}" if form == "slots" else "{form: blocks}")
    assert "space.yaml:2: `path`: slot 0 (layer 0 of `lang`) does not fit the path: its rotary emb" in said


def test_a_stack_does_not_see(tmp_path: Path) -> None:
    seeing_expert(tmp_path / "eyes")
    text = SPACE.replace("{math: math, lang: lang}", "{math: zoo:math, eyes: eyes}")
    text = text.replace("tasks: tasks", "tasks: zoo:tasks").replace("{task: tiny}", "{task: math_b}")
    said = refusal(tmp_path, "{form: slots}", text)
    assert said.endswith("`path`: a path takes its layers from plain language models, and `eyes` also sees")
    swap = (
        "merge: {base: math, sources: [eyes]}\npath: {form: layer_swap, task: [math, merged], language: eyes}"
    )
    said = refusal(tmp_path, "", text.replace("path: PATH", swap))
    assert said.endswith("merges of merges are made of plain language models, and `eyes` also sees")


def test_scales_that_do_not_fold(tmp_path: Path) -> None:
    for seed, name in enumerate(("math", "lang")):
        save_random_model("olmo2", "float32", seed, tmp_path / name)
        save_tokenizer(tmp_path / name, WORDS)
    save_task(tmp_path / "tasks")
    said = refusal(tmp_path, "{form: slots}")
    assert "`path`: the scale" in said
    assert said.endswith("leave every `scale` at 1 (in a space, `scale: 1` under `path`)")
    (tmp_path / "space.yaml").write_text(SPACE.replace("PATH", "{form: slots, scale: 1}"), encoding="utf-8")
    assert resolve(read_space(tmp_path / "space.yaml")).genome.genes
