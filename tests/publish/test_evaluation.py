"""Anything scored with a space's objectives scores as it did in the search."""

from __future__ import annotations

from pathlib import Path

import pytest

from evomerge import open_run
from evomerge.archive.run import Run
from evomerge.controller.closing_report import from_json
from evomerge.errors import RequestError
from evomerge.publish.evaluation import score
from evomerge.recipe import Merge, ModelRef, Recipe
from tests.cli.conftest import Command


@pytest.fixture
def space(run: Run) -> Path:
    return run.folder.path.parent / "small.yaml"


def test_a_trial_scores_as_recorded_and_reported(run: Run, space: Path) -> None:
    best = run.best(None)
    searched = score(space, run.folder.path)
    assert {each.measure.name: each.score for each in searched.scores} == run.scores(best)
    (single,) = searched.scores
    assert (single.items, single.role, searched.what) == (
        40,
        "objective",
        f"trial {best} of {run.folder.path}",
    )
    assert single.error == pytest.approx((single.score * (1 - single.score) / 39) ** 0.5)
    report = from_json(run.report() or {})
    row = next(row for row in report.rows if row.trial == best)
    reported = score(space, open_run(run.folder.path), items="report", trial=best)
    assert {each.measure.name: each.score for each in reported.scores} == row.report
    assert reported.scores[0].items == 60


def test_an_exported_folder_and_its_recipe_score_alike(run: Run, space: Path, exported: Path) -> None:
    want = run.scores(run.best(None))
    for what in (exported, exported / "recipe.yaml"):
        found = score(space, what)
        assert {each.measure.name: each.score for each in found.scores} == want


def test_a_source_of_the_space_scores_as_the_parent(run: Run, space: Path) -> None:
    trials = run.trials()
    parent = int(trials[trials["baseline"] == "parent math"]["trial"].iloc[0])
    for what in ("math", "zoo:math"):
        (found,) = score(space, what).scores
        assert found.score == run.scores(parent)[found.measure.name]


def test_a_recipe_as_a_value(space: Path) -> None:
    models = {name: ModelRef(source=f"zoo:{name}") for name in ("math", "lang")}
    merge = Merge(method="linear", sources=("math", "lang"))
    found = score(space, Recipe(models=models, merges={"m": merge}, dtype="float32"), items="select")
    assert (found.what, found.scores[0].items, found.split) == ("the recipe", 40, "select")


def test_the_command_prints_a_table_or_json(space: Path, command: Command) -> None:
    code, out, err = command("evaluate", space, "math", "--items", "report")
    assert code == 0
    assert "math on report items" in out
    assert "60" in out
    assert err.endswith("on cpu\n")
    code, out, _ = command("evaluate", space, "math", "--format", "json")
    import json

    assert code == 0
    content = json.loads(out)
    assert content["items"] == "search"
    (single,) = content["scores"]
    assert (single["task"], single["metric"], single["items"]) == ("math_b", "acc", 40)
    assert 0 < single["standard_error"] < 0.1


def test_bad_input_is_refused_in_a_sentence(run: Run, space: Path, tmp_path: Path, command: Command) -> None:
    (tmp_path / "recipe.yaml").write_text("models: {}\n")
    searched_only = tmp_path / "bare.yaml"
    searched_only.write_text(space.read_text().replace("select: 40", "select: 0"))
    refused = {
        (space, "nothing-here"): "no model folder `nothing-here`",
        (space, "zoo:nobody"): "no zoo model named `nobody`",
        (space, tmp_path): f"{tmp_path}",
        (space, tmp_path / "recipe.yaml"): "a recipe without a path needs exactly one merge",
        (space, "math", "--trial", "3"): "`--trial` is a trial of a run, and math is none",
        (space, run.folder.path, "--trial", "999"): "999",
        (space, "math", "--source", "mth=/tmp"): "no model named `mth`",
        (tmp_path / "none.yaml", "math"): "no space file at",
        (searched_only, "math", "--items", "select"): "the space `bare` has no select items",
    }
    for arguments, said in refused.items():
        code, out, err = command("evaluate", *arguments)
        assert (code, out) == (2, ""), (arguments, err)
        assert said in err
        assert len(err.splitlines()) == 1, err


def test_splits_are_those_of_a_space(space: Path) -> None:
    with pytest.raises(RequestError, match="no split of items named `test`"):
        score(space, "math", items="test")  # type: ignore[arg-type]
