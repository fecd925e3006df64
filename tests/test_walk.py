"""A stranger's walk: every command and cell of the README and the guides runs, in the order they stand.

Each document has a folder of its own, in which spaces it shows are files by the names it gives them. Searches
are cut short; what cannot run here is listed, with the reason.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parent.parent
MERGEKIT = ROOT / "docs" / "guides" / "coming-from-mergekit.md"
BUDGET = "10"

NOT_HERE = {
    r"dashboard ": "it serves until Ctrl-C; tests/cli/test_browser.py opens it",
    r"--ray-address": "it needs a cluster; tests/dispatch starts one",
    r"--push-to": "it needs the hub; tests/publish stands in for it",
    r"/models/": "these folders are the reader's",
    r"zoo build": "it trains for minutes; tests/zoo does it",
    r"postgresql": "it needs a server; tests/archive starts one",
}
"""What is not run, by a pattern, and why."""

SPACES = {"first-search.md": "first.yaml", "several-objectives.md": "space.yaml"}
"""Under which name a document has its readers save the first space it shows."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language and its text."""

    language: str
    text: str


def blocks(document: Path) -> Iterator[Block]:
    for language, text in re.findall(r"^```(\w*)\n(.*?)^```", document.read_text(), re.DOTALL | re.MULTILINE):
        yield Block(language, text)


def commands(block: Block) -> Iterator[str]:
    """Yield the commands of evomerge in a block of shell lines."""
    if block.language in ("", "sh", "console"):
        for line in block.text.splitlines():
            if line.startswith("evomerge ") and "$(" not in line:
                yield line.split("  #")[0].strip()


def shortened(command: str) -> list[str]:
    """Return the words of a command; a search has a small budget."""
    words = shlex.split(command)[1:]
    if words[0] == "search":
        if "--budget" in words:
            words[words.index("--budget") + 1] = BUDGET
        else:
            words += ["--budget", BUDGET]
    return words


def run(words: list[str], folder: Path) -> str:
    into = words.index(">") if ">" in words else len(words)
    done = subprocess.run(
        [sys.executable, "-m", "evomerge", *words[:into]],
        cwd=folder, env=os.environ, text=True, capture_output=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{words}: {done.stderr}"
    for target in words[into + 1 :]:
        (folder / target).write_text(done.stdout)
    return done.stdout


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What a reader has: the repository's spaces and examples, and files of prompts."""
    for name in ("search_spaces", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    prompts = [f"{one} plus two is" for one in ("one", "two", "three", "four")]
    (tmp_path / "maths.txt").write_text("\n".join(prompts))
    (tmp_path / "maths.jsonl").write_text("\n".join(f'{{"text": "{each}"}}' for each in prompts))
    (tmp_path / "mergekit.yaml").write_text(
        next(block.text for block in blocks(MERGEKIT) if "merge_method:" in block.text)
    )
    (tmp_path / "runs").mkdir()
    return tmp_path


def walk(document: Path, folder: Path) -> int:
    """Run what a document says and return how many commands that were."""
    space, count = SPACES.get(document.name), 0
    for left in ("merged-model", "again"):  # by the document before
        shutil.rmtree(folder / left, ignore_errors=True)
    for block in blocks(document):
        if block.language == "yaml" and space and "objectives:" in block.text:
            (folder / space).write_text(block.text)
        for command in commands(block):
            if not any(re.search(pattern, command) for pattern in NOT_HERE):
                run(shortened(command), folder)
                count += 1
    return count


@pytest.mark.parametrize(
    "name", ["docs/guides/first-search.md", "docs/guides/several-objectives.md", "docs/guides/data-flow.md"]
)
def test_a_guide_can_be_walked(name: str, folder: Path) -> None:
    assert walk(ROOT / name, folder)


def test_the_readme_and_what_goes_on_from_its_run_can_be_walked(folder: Path) -> None:
    (folder / "my-space.yaml").symlink_to(ROOT / "search_spaces" / "quickstart.yaml")
    for name in ("README.md", "docs/guides/reading-the-report.md", "docs/guides/your-own-models.md"):
        assert walk(ROOT / name, folder), name


EVOLVE = """\
genome:
  models: [zoo:math, zoo:lang]
  merge_method: task_arithmetic
  base_model: zoo:base
  layer_granularity: 3
tasks:
  - {name: math_b, weight: 1.0, metric: "acc,none"}
limit: 60
"""


def test_who_comes_from_mergekit_can_go_on(folder: Path) -> None:
    (folder / "evolve.yaml").write_text(EVOLVE)
    first, export, back, evolved, search = (line for block in blocks(MERGEKIT) for line in commands(block))
    run(shortened(first), folder)
    run(shortened(export), folder)
    (folder / "mergekit.yaml").unlink()
    run(shortened(back), folder)
    run(shortened(evolved), folder)
    with (folder / "space.yaml").open("a") as space:
        space.write("tasks: zoo:tasks\n")  # mergekit-evolve is told of them on its command line
    run(shortened(search), folder)


def test_the_cells_of_the_pandas_guide_run(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(["search", "search_spaces/two_objectives.yaml", "--budget", "20"], folder)
    monkeypatch.chdir(folder)
    known: dict[str, Any] = {}
    cells = [block.text for block in blocks(ROOT / "docs/guides/pandas.md") if block.language == "python"]
    assert len(cells) > 6
    for cell in cells:
        exec(compile(cell, "pandas.md", "exec"), known)
    assert len(known["table"]) == 200
    assert set(known["weights"]["module"]) == {"attn", "mlp", "rest", "embed", "head"}
    assert known["recipe"].key == known["run"].recipe(known["run"].best("math_b")).key


def test_every_command_of_the_documents_is_walked_or_excused() -> None:
    walked = {
        "README.md", "first-search.md", "several-objectives.md", "data-flow.md", "reading-the-report.md",
        "your-own-models.md", "coming-from-mergekit.md",
    }  # fmt: skip
    for document in [ROOT / "README.md", *sorted((ROOT / "docs" / "guides").glob("*.md"))]:
        for block in blocks(document):
            for command in commands(block):
                excused = any(re.search(pattern, command) for pattern in NOT_HERE)
                assert excused or document.name in walked, f"{document.name}: {command}"
