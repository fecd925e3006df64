"""Models that a path cannot take layers from are refused, and runs of which something has changed since."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from evomerge.archive.folder import RunFolder
from evomerge.controller.search import Options, resume_search, start_search
from evomerge.controller.setup import resolve
from evomerge.errors import RecipeError, RunError
from evomerge.space import read_space
from tests.cli.conftest import MERGED, WORDS, edit_config, save_llama, save_task, save_tokenizer
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


@pytest.fixture
def begun(tmp_path: Path) -> RunFolder:
    """Return a run that was started and has not come far, beside its space, sources and task."""
    for seed, name in enumerate(("base", "math", "lang")):
        save_llama(tmp_path / "models" / name, seed=seed)
    save_task(tmp_path / "tasks")
    (tmp_path / "space.yaml").write_text(MERGED)
    folder = RunFolder(tmp_path / "run")
    prepared = start_search(read_space(tmp_path / "space.yaml"), folder, options=Options(serial=True))
    folder.create(prepared.record, MERGED)
    return folder


def edit(file: Path, before: str, after: str) -> None:
    text = file.read_text()
    assert before in text
    file.write_text(text.replace(before, after))


def flip_a_bit(place: Path) -> None:
    file = place / "models" / "lang" / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-3] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (lambda place: edit(place / "space.yaml", "layers: 1", "layers: 2"), "`merge` of the space"),
        (
            lambda place: edit(place / "space.yaml", "search: 4", "search: 5"),
            "`items` of the space, the items",
        ),
        (flip_a_bit, "the content of source `lang`"),
        (
            lambda place: edit(place / "tasks" / "tiny.yaml", "{{prompt}}", "{{prompt}} so"),
            "what task `tiny` asks",
        ),
        (
            lambda place: edit(place / "tasks" / "tiny.yaml", "target: gold", "target: 0"),
            "what task `tiny` asks",
        ),
        (lambda place: edit(place / "tasks" / "tiny.jsonl", "the cat", "a cat"), "the items of task `tiny`"),
        (
            lambda place: edit(place / "tasks" / "tiny.yaml", "better: true", "better: false"),
            "a metric's direction",
        ),
    ],
)
def test_a_run_of_which_something_has_changed_is_not_continued(
    begun: RunFolder, change: Callable[[Path], None], what: str
) -> None:
    place = begun.path.parent
    change(place)
    before = {file: file.read_bytes() for file in begun.path.iterdir() if file.name != "lock"}
    with pytest.raises(RunError) as caught:
        resume_search(read_space(place / "space.yaml"), begun, options=Options(serial=True))
    assert str(caught.value).startswith(f"{begun.path} cannot be continued: ")
    assert what in str(caught.value)
    assert str(caught.value).endswith("changed since it was started; undo that, or start a new run")
    assert {file: file.read_bytes() for file in begun.path.iterdir() if file.name != "lock"} == before


def test_a_run_that_moved_with_all_it_reads_is_continued(begun: RunFolder) -> None:
    place = begun.path.parent
    away = place / "elsewhere"
    away.mkdir()
    for name in ("models", "tasks", "space.yaml", "run"):
        shutil.move(place / name, away / name)
    moved = resume_search(
        read_space(away / "space.yaml"), RunFolder(away / "run"), options=Options(serial=True)
    )
    assert moved.record.paths["lang"] == str(away / "models" / "lang")
    assert moved.record.tasks == str(away / "tasks")
