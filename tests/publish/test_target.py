"""The target of an export: never a source, never half a folder, never lost."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from evomerge.archive.run import Run
from evomerge.cli.main import main
from evomerge.errors import ExportError, RequestError
from evomerge.publish import checkpoint
from evomerge.publish.public import export
from evomerge.recipe import to_yaml
from tests.publish.test_sources import at


def contents(folder: Path) -> dict[Path, bytes]:
    return {file: file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("target", ["models/math", "models", "models/math/merged", "models/lang/../math"])
def test_a_source_is_not_overwritten(models: Path, target: str) -> None:
    (models / "config.json").write_text("{}")  # a folder of checkpoints that is one itself
    before = contents(models.parent)
    with pytest.raises(RequestError, match=r"is, holds or lies in .*/models/math, which the export reads"):
        export(at(models, "math", "lang"), models.parent / target, overwrite=True)
    assert contents(models.parent) == before


def test_a_source_given_by_path_is_not_overwritten(models: Path) -> None:
    (models.parent / "linked").symlink_to(models / "math")
    with pytest.raises(RequestError, match="which the export reads"):
        export(
            at(models, "math", "lang"), models / "math",
            paths={"math": models.parent / "linked"}, overwrite=True,
        )  # fmt: skip


@pytest.mark.parametrize("inside", ["", "merged"])
def test_the_run_is_not_overwritten(run: Run, inside: str) -> None:
    config = run.folder.path / "config.json"
    config.write_text("{}")
    try:
        before = contents(run.folder.path)
        with pytest.raises(RequestError, match="which the export reads"):
            export(run, run.folder.path / inside, overwrite=True)
        assert contents(run.folder.path) == before
    finally:
        config.unlink()


def test_a_link_is_not_a_target(models: Path) -> None:
    (models.parent / "link").symlink_to(models / "permuted")
    with pytest.raises(RequestError, match="is a link"):
        export(at(models, "math", "lang"), models.parent / "link", overwrite=True)


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("what", ["error", "interrupt"])
def test_what_goes_wrong_while_overwriting_leaves_a_whole_checkpoint(
    models: Path, monkeypatch: pytest.MonkeyPatch, number: int, what: str
) -> None:
    target = export(at(models, "math"), models.parent / "out")
    rename, seen = Path.rename, 0

    def counted(path: Path, to: Any) -> Path:
        nonlocal seen
        seen += 1
        if seen == number:
            if what == "error":
                raise OSError(5, "Input/output error")
            signal.raise_signal(signal.SIGINT)
        return rename(path, to)

    monkeypatch.setattr(Path, "rename", counted)
    with pytest.raises(ExportError if what == "error" else KeyboardInterrupt):
        export(at(models, "math", "lang"), target, overwrite=True)
    assert json.loads((target / "config.json").read_text())["model_type"] == "llama"
    assert ("lang" in (target / "recipe.yaml").read_text()) == (what == "interrupt")
    assert sorted(each.name for each in models.parent.iterdir()) == ["models", "out"]


def test_a_name_the_disk_cannot_hold_is_one_sentence(models: Path) -> None:
    with pytest.raises(ExportError, match=r"^writing .* failed: File name too long$"):
        export(at(models, "math"), models.parent / ("x" * 250))


def test_what_somebody_put_beside_a_checkpoint_is_not_lost(models: Path) -> None:
    target = export(at(models, "math", "lang"), models.parent / "out")
    (target / "notes").mkdir()
    with pytest.raises(RequestError, match=r"out holds `notes`, which evomerge did not write; move it away"):
        export(at(models, "math", "lang"), target, overwrite=True)
    (target / "notes").rmdir()
    export(at(models, "math", "lang"), target, overwrite=True)


def test_a_folder_with_a_recipe_of_ones_own_is_not_replaced(models: Path) -> None:
    mine = models.parent / "mine"
    mine.mkdir()
    (mine / "recipe.yaml").write_text("# my own words\n")
    with pytest.raises(RequestError, match=r"\(it has no config\.json\), so it is not overwritten"):
        export(at(models, "math", "lang"), mine, overwrite=True)


def test_a_terminated_export_leaves_nothing(models: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (models.parent / "recipe.yaml").write_text(to_yaml(at(models, "math", "lang")))

    def terminated(*arguments: object, **options: object) -> None:
        signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(checkpoint, "model_card", terminated)
    monkeypatch.setattr(
        sys, "argv", ["evomerge", "export", str(models.parent / "recipe.yaml"), str(models.parent / "out")]
    )
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as ended:
            main()
    finally:
        signal.signal(signal.SIGTERM, before)
    assert ended.value.code == 130
    assert not [path for path in models.parent.iterdir() if "out" in path.name]
