"""What the documents say is so: the example works, commands exist, links lead somewhere."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer.main

import evomerge
import evomerge.controller.samplers
import evomerge.merge.methods
from evomerge import plugins
from evomerge.cli.main import app
from evomerge.controller.search import Options, check_space
from evomerge.recipe import from_yaml
from evomerge.report.methods import reference
from evomerge.space import load_space
from evomerge.space.load import read_space
from evomerge.testing.methods import check_method
from evomerge.testing.samplers import check_sampler

ROOT = Path(__file__).parent.parent
DOCUMENTS = sorted(
    path
    for path in [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), ROOT / "runs" / "README.md"]
    if path.is_file()
)


@pytest.fixture
def method_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder whose files are methods as if they lay in `evomerge/merge/methods/`."""
    monkeypatch.setattr(evomerge.merge.methods, "__path__", [*evomerge.merge.methods.__path__, str(tmp_path)])
    for cached in (plugins.names, plugins.load):
        cached.cache_clear()
    yield tmp_path
    for cached in (plugins.names, plugins.load):
        cached.cache_clear()


def test_the_method_in_contributing_is_a_method(method_folder: Path) -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text()
    code = re.search(r"```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    (method_folder / "max.py").write_text(code[1])
    assert "max" in plugins.names("methods")
    check_method("max")
    assert "https://" in code[1]  # as every method's source is asked for
    asked = [sys.executable, "-m", "ruff", "check", "--quiet", "--stdin-filename"]
    linted = subprocess.run(
        [*asked, "evomerge/merge/methods/max.py", "-"],
        cwd=ROOT, input=code[1], text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert linted.returncode == 0, linted.stdout


EXTENDING = (ROOT / "docs" / "guides" / "extending.md").read_text()


@pytest.fixture
def sampler_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give a folder whose files are samplers as if they lay in `evomerge/controller/samplers/`."""
    there = evomerge.controller.samplers
    monkeypatch.setattr(there, "__path__", [*there.__path__, str(tmp_path)])
    for cached in (plugins.names, plugins.load):
        cached.cache_clear()
    yield tmp_path
    for cached in (plugins.names, plugins.load):
        cached.cache_clear()


def test_the_sampler_in_the_guide_is_a_sampler(sampler_folder: Path) -> None:
    code = re.search(r"```python\n(.*?)```", EXTENDING, re.DOTALL)
    assert code is not None
    (sampler_folder / "hill.py").write_text(code[1])
    check_sampler("hill")


def test_the_task_in_the_guide_is_an_objective(tmp_path: Path) -> None:
    lines, task = (re.search(rf"```{kind}\n(.*?)```", EXTENDING, re.DOTALL) for kind in ("json", "yaml"))
    assert lines is not None
    assert task is not None
    (tmp_path / "my-tasks").mkdir()
    questions = [line.replace("two plus", f"{i} plus") for i in range(30) for line in lines[1].splitlines()]
    (tmp_path / "my-tasks" / "sums.jsonl").write_text("\n".join(questions))
    (tmp_path / "my-tasks" / "sums.yaml").write_text(task[1].replace("/home/you", str(tmp_path)))
    space = tmp_path / "space.yaml"
    space.write_text(
        "sources: {base: zoo:base, math: zoo:math}\nmerge: {base: base, method: task_arithmetic}\n"
        "tasks: ./my-tasks\nobjectives: [{task: sums, metric: acc}]\n"
    )
    record = check_space(read_space(space, {}), options=Options())
    [measure] = record.objectives
    assert (measure.name, measure.higher_is_better) == ("sums", True)
    assert sum(map(len, record.items["sums"].values())) == 31  # of two templates, one does not vary


@pytest.mark.parametrize("path", sorted((ROOT / "search_spaces").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_spaces_are_valid(path: Path) -> None:
    assert load_space(path).name == path.stem


def test_the_space_in_the_readme_is_valid(tmp_path: Path) -> None:
    code = re.search(r"```yaml\n(sources:.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    assert code is not None
    (tmp_path / "space.yaml").write_text(code[1])
    assert load_space(tmp_path / "space.yaml").merge.methods == ("task_arithmetic", "ties")


RECIPES = [
    pytest.param(code, id=f"{document.name}-{i}")
    for document in DOCUMENTS
    for i, code in enumerate(re.findall(r"```yaml\n(models:.*?)```", document.read_text(), re.DOTALL))
]


@pytest.mark.parametrize("text", RECIPES)
def test_recipes_in_the_documents_can_be_exported(text: str, tmp_path: Path) -> None:
    evomerge.export(from_yaml(text), tmp_path / "merged")


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_commands_and_options_in_the_documents_exist(document: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    blocks = "".join(re.findall(r"```\n(.*?)```", document.read_text(), re.DOTALL))
    for line in re.findall(r"^\s*evomerge (.*)$", blocks, re.MULTILINE):
        name, *rest = line.split("#")[0].split()
        assert name in commands, line
        command = commands[name]
        if hasattr(command, "commands"):
            command = command.commands[rest[0]]
        known = {option for parameter in command.params for option in parameter.opts}
        assert {word for word in rest if word.startswith("--")} <= known, line


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_in_the_documents_lead_somewhere(document: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", document.read_text()):
        assert (document.parent / link).exists(), link


def test_the_reference_of_commands_is_what_they_say() -> None:
    written = (ROOT / "docs" / "reference" / "cli.md").read_text(encoding="utf-8")
    asked = [sys.executable, "-m", "typer", "evomerge.cli.main", "utils", "docs", "--name", "evomerge"]
    said = subprocess.run(asked, cwd=ROOT, text=True, capture_output=True, check=True).stdout
    assert written.strip() == said.strip(), "docs/reference/cli.md is stale: run `make docs`"


def test_the_reference_of_methods_is_what_they_declare() -> None:
    written = (ROOT / "docs" / "reference" / "methods.md").read_text(encoding="utf-8")
    assert written == reference(), "docs/reference/methods.md is stale: run `make docs`"
