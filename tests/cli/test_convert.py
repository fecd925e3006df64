"""`evomerge convert` as people use it: to stdout or a file, refusals in sentences, nothing half written."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge.mergekit.reading import from_mergekit
from evomerge.recipe import from_yaml
from tests.cli.conftest import Command

SLERP = """\
merge_method: slerp
base_model: zoo:base
slices:
  - sources: [{model: zoo:base, layer_range: [0, LAST]}, {model: zoo:math, layer_range: [0, LAST]}]
parameters: {t: [{filter: mlp, value: [0, 1]}, {value: 0.5}], int8_mask: true}
dtype: bfloat16
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "mergekit.yaml"
    path.write_text(SLERP.replace("LAST", "6"))
    return path


def test_a_recipe_of_mergekit_goes_to_stdout_and_back(file: Path, command: Command) -> None:
    code, out, err = command("convert", str(file))
    assert (code, err) == (0, "note: `parameters.int8_mask` changes nothing in the result and is left out\n")
    recipe = from_yaml(out)
    assert recipe.path is None  # the zoo's models were looked at: six layers are all of them
    (file.parent / "recipe.yaml").write_text(out)
    code, out, _ = command("convert", str(file.parent / "recipe.yaml"))
    assert code == 0
    assert from_mergekit(out)[0] == recipe


def test_models_that_are_here_show_that_slices_are_a_part(file: Path, command: Command) -> None:
    file.write_text(SLERP.replace("LAST", "4"))
    _, out, _ = command("convert", str(file))
    assert len(from_yaml(out).path or ()) == 4


def test_it_is_written_to_a_file_that_is_not_there_yet(file: Path, command: Command) -> None:
    target = file.parent / "recipe.yaml"
    assert command("convert", str(file), str(target), "--to", "recipe")[:2] == (0, f"{target}\n")
    written = target.read_bytes()
    code, out, err = command("convert", str(file), str(target))
    assert (code, out) == (2, "")
    assert err == f"error: {target} exists; choose another file, or replace it with `--overwrite`\n"
    assert target.read_bytes() == written
    assert command("convert", str(file), str(target), "--overwrite")[0] == 0


def test_what_cannot_be_converted_leaves_no_file(file: Path, command: Command) -> None:
    file.write_text(SLERP.replace("LAST", "6") + "chat_template: auto\nmodules: {}\n")
    target = file.parent / "recipe.yaml"
    code, out, err = command("convert", str(file), str(target))
    assert (code, out) == (2, "")
    first, second = err.splitlines()
    assert first.startswith(f"error: {file}:7: `chat_template` is not converted: ")
    assert second.startswith(f"{file}:8: `modules` is not converted: ")
    assert not target.exists()


@pytest.mark.parametrize(
    ("text", "options", "said"),
    [
        (SLERP, ["--to", "space"], "is a recipe of mergekit, which is not converted to a space of evomerge"),
        ("objectives: [{task: t}]\n", [], "is a space of evomerge, which is not converted to anything"),
        ("a: 1\n", [], "it has none of `merge_method`, `genome`, `merges` and `path`"),
        ("merges: {m: {}}\n", [], "needs `models`"),
        ("merge_method: [\n", [], ":2: not YAML"),
    ],
)
def test_what_is_no_file_to_convert_is_refused_in_a_sentence(
    text: str, options: list[str], said: str, file: Path, command: Command
) -> None:
    file.write_text(text)
    code, out, err = command("convert", str(file), *options)
    assert (code, out) == (2, "")
    assert said in err
    assert str(file) in err
    assert len(err.splitlines()) == 1


def test_a_file_that_is_not_there_is_refused(command: Command) -> None:
    assert command("convert", "no.yaml") == (2, "", "error: no file at no.yaml\n")


EVOLVE = """\
genome:
  models: [zoo:math, zoo:lang]
  merge_method: ties
  base_model: zoo:base
  layer_granularity: 3
  filters: [self_attn]
tasks: [{name: math_b, weight: 2}, {name: lang_b}]
limit: 40
num_fewshot: 0
"""


def test_a_config_of_mergekit_evolve_becomes_a_space_that_can_be_searched(
    file: Path, command: Command
) -> None:
    file.write_text(EVOLVE)
    space = file.parent / "space.yaml"
    code, _, err = command("convert", file, space)
    assert code == 0
    assert "note: `tasks[0].weight` (2) has no equal" in err
    space.write_text(space.read_text() + "tasks: zoo:tasks\n")  # which mergekit is told on its command line
    code, out, err = command("check", space)
    assert code == 0, err
    assert "ties" in out


def test_an_adapter_that_lies_here_goes_with_its_base(file: Path, command: Command) -> None:
    (file.parent / "lora").mkdir()
    (file.parent / "lora" / "adapter_config.json").write_text("{}")
    recipe = file.parent / "recipe.yaml"
    recipe.write_text(
        "models: {base: o/base, lora: lora}\n"
        "merges: {m: {method: task_arithmetic, base: base, sources: [lora]}}\n"
    )
    code, out, _ = command("convert", recipe)
    assert code == 0
    assert "- model: o/base+lora\n" in out
