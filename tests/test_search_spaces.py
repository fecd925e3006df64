"""The spaces in search_spaces/ are what newcomers copy: each can be searched, and says what its keys mean."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import lm_eval
import pytest
import yaml

import evomerge
from evomerge.controller.check import Findings
from evomerge.controller.public import look_over
from evomerge.controller.search import Options
from evomerge.space import load_space

FOLDER = Path(__file__).parent.parent / "search_spaces"
SPACES = sorted(FOLDER.glob("*.yaml"))
LARGE = [path for path in SPACES if path.stem.endswith("7b")]
AFTER_ANOTHER = [path for path in SPACES if "../runs/" in path.read_text(encoding="utf-8")]
AT_ONCE = [path for path in SPACES if path not in LARGE and path not in AFTER_ANOTHER]


def test_there_are_spaces_for_all_that_newcomers_begin_with() -> None:
    names = {path.stem for path in SPACES}
    assert names >= {"quickstart", "two_objectives", "data_flow", "hybrid", "lora", "staged"}
    assert len(LARGE) == 1


@pytest.mark.parametrize("path", SPACES, ids=lambda path: path.stem)
def test_every_key_is_explained(path: Path) -> None:
    """Every key at the top has a comment, on its line or on those below it; so has how to run the file."""
    text = path.read_text(encoding="utf-8")
    blocks = re.split(r"^(?=\w)", text, flags=re.MULTILINE)[1:]
    bare = [block.partition(":")[0] for block in blocks if "# " not in block]
    assert bare == []
    assert f"evomerge search search_spaces/{path.name}" in text


def sound(path: Path, **changes: Any) -> Findings:
    """Look a space over, a candidate built and scored included."""
    found = look_over(path, changes=changes, options=Options(workers=1), dry=True)
    assert isinstance(found, Findings), found
    assert found.problems == ()
    assert found.dry_run is not None
    return found


@pytest.mark.parametrize("path", AT_ONCE, ids=lambda path: path.stem)
def test_a_candidate_of_every_space_of_the_zoo_is_built_and_scored(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = sound(path)
    assert found.warnings == (), "what newcomers copy is wise, too"
    assert list(tmp_path.iterdir()) == []


def test_a_stage_goes_on_from_the_quickstart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(FOLDER, tmp_path / "search_spaces")
    monkeypatch.chdir(tmp_path)
    items = {"search": 20, "select": 20, "report": 20}
    space = load_space("search_spaces/quickstart.yaml", {"items": items, "budget": 7})
    evomerge.search(space, serial=True)
    (stage,) = AFTER_ANOTHER
    found = sound(tmp_path / "search_spaces" / stage.name, items=items)
    assert "runs/quickstart/exports" in found.record.paths["best"]


@pytest.mark.parametrize("path", LARGE, ids=lambda path: path.stem)
def test_a_large_space_asks_lm_eval_for_what_it_has(path: Path) -> None:
    """Its models are not here, but its keys are held to what a search reads, and its tasks to lm-eval's."""
    space = load_space(path)
    assert space.used == ("japanese", "base", "wizard", "abel")
    for asked in (*space.objectives, *space.constraints, *space.held_out):
        task = lm_eval_task(asked.task)
        assert asked.metric in {each["metric"] for each in task["metric_list"]}
        if asked.filter is not None:
            assert asked.filter in {each["name"] for each in task["filter_list"]}


def lm_eval_task(name: str) -> dict[str, Any]:
    """Return the YAML of one of lm-eval's own tasks, over what it includes."""
    tasks = Path(lm_eval.__file__).parent / "tasks"
    (file,) = tasks.rglob(f"{name}.yaml")
    own: dict[str, Any] = yaml.load(file.read_text(encoding="utf-8"), _Plain)  # a SafeLoader
    base = yaml.load((file.parent / own["include"]).read_text(encoding="utf-8"), _Plain)
    return {**base, **own}


class _Plain(yaml.SafeLoader):
    """Takes lm-eval's `!function` for its text."""


_Plain.add_constructor("!function", lambda loader, node: node.value)
