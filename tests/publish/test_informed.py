"""Searches of the zoo over methods that merge by statistics, and their exports."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file

import evomerge
from evomerge.archive.run import Run
from evomerge.checkpoints.locate import ZOO
from evomerge.controller.public import search
from evomerge.errors import RequestError
from evomerge.evaluate.evaluator import only_compute
from evomerge.recipe import from_yaml, to_yaml

SPACE = """
sources:
  math: {source: zoo:math, fisher: math.fisher, gram: math.gram}
  lang: {source: zoo:lang, fisher: lang.fisher, gram: lang.gram}
merge: {method: [fisher, regmean], layers: 1}
objectives: [{task: math_b, metric: acc}]
tasks: zoo:tasks
items: {search: 20, select: 20, report: 20}
sampler: random
budget: 9
dtype: float32
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a space and what its methods merge by."""
    only_compute(1)
    folder = tmp_path_factory.mktemp("informed")
    for model, task in (("math", "math_a"), ("lang", "lang_b")):
        lines = (ZOO / "tasks" / "data" / f"{task}.jsonl").read_text(encoding="utf-8").splitlines()
        prompts = [json.loads(line)["prompt"] for line in lines[:8]]
        for kind in ("fisher", "gram"):
            evomerge.measure(kind, f"zoo:{model}", prompts, folder / f"{model}.{kind}")
    (folder / "space.yaml").write_text(SPACE, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def run(place: Path) -> Run:
    return search(place / "space.yaml", run=place / "run", serial=True)


def first_of(run: Run, method: str) -> int:
    return next(int(n) for n in run.trials()["trial"] if run.recipe(int(n)).merge.method == method)


def test_a_search_over_both_methods_scores_every_candidate(run: Run) -> None:
    trials = run.trials()
    assert list(trials["state"]) == ["scored"] * 9
    assert set(trials["method"].dropna()) == {"fisher", "regmean"}
    assert set(run.record.paths) == {
        "math",
        "lang",
        *(f"{m}:{k}" for m in ("math", "lang") for k in ("fisher", "gram")),
    }


def test_recipes_pin_only_what_their_method_reads(run: Run) -> None:
    for method, kind in (("fisher", "fisher"), ("regmean", "gram"), ("linear", None)):
        for ref in run.recipe(first_of(run, method)).models.values():
            assert list(ref.measured) == ([kind] if kind else [])
            assert all(digest and digest.startswith("blake2b:") for _, digest in ref.measured.values())


@pytest.mark.parametrize("method", ["fisher", "regmean"])
def test_a_trial_is_exported_as_scored_and_its_recipe_makes_it_again(
    run: Run, place: Path, tmp_path: Path, method: str
) -> None:
    target = evomerge.export(run, tmp_path / "out", trial=first_of(run, method))  # holds it to its score
    model = transformers.AutoModelForCausalLM.from_pretrained(target)
    assert model.dtype == torch.float32
    kind = "fisher" if method == "fisher" else "gram"
    written = (target / "recipe.yaml").read_text(encoding="utf-8")
    assert str(place) not in written
    assert from_yaml(written).models["math"].measured[kind][0] == f"math.{kind}"  # type: ignore[index]
    paths = {f"{name}:{kind}": place / f"{name}.{kind}" for name in ("math", "lang")}
    again = evomerge.export(target / "recipe.yaml", tmp_path / "again", paths=paths)
    one, other = (load_file(folder / "model.safetensors") for folder in (target, again))
    assert all(torch.equal(one[name], other[name]) for name in one)
    average = evomerge.export(run, tmp_path / "average", trial=first_of(run, "linear"))
    assert not torch.equal(load_file(average / "model.safetensors")["lm_head.weight"], one["lm_head.weight"])


def test_another_file_than_the_recipe_s_is_refused(run: Run, place: Path, tmp_path: Path) -> None:
    recipe = run.recipe(first_of(run, "fisher"))
    (tmp_path / "recipe.yaml").write_text(to_yaml(recipe), encoding="utf-8")
    prompts = ["1 + 1 ="]
    other = evomerge.measure("fisher", "zoo:math", prompts, tmp_path / "other")
    strange = evomerge.measure("fisher", "zoo:base", prompts, tmp_path / "strange")
    for file, message in (
        (other, r"other are not the fisher of `math` in the recipe: their content digest is"),
        (place / "lang.fisher", r"was measured on `lang`, not on `math`; name each source's own file"),
        (strange, r"was measured on another model \(content .*\) than `math`"),
        (place / "math.gram", r"holds the gram of a model, not its fisher"),
        (tmp_path / "none", r"no statistics file .*; say where it lies with `--source math:fisher=FILE`"),
    ):
        with pytest.raises(RequestError, match=message):
            evomerge.export(tmp_path / "recipe.yaml", tmp_path / "out", paths={"math:fisher": file})
    with pytest.raises(RequestError, match="no model named `math:gram`"):
        evomerge.export(recipe, tmp_path / "out", paths={"math:gram": place / "math.gram"})
    bare = replace(recipe, models={name: ref.informed_by(None) for name, ref in recipe.models.items()})
    with pytest.raises(
        RequestError, match="`fisher` merges by the fisher of each source, and `math` has none"
    ):
        evomerge.export(bare, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fisher: math.fisher", "fisher: none", r"space\.yaml:3: `sources\.math`: no statistics file `none`"),
        ("fisher: math.fisher", "fisher: math.gram", r"`sources\.math`: .* holds the gram of a model, not"),
        (
            "fisher: math.fisher",
            "fisher: lang.fisher",
            r"`sources\.math\.fisher`: the fisher in .* was measured on `lang`, not on `math`",
        ),
        (
            "fisher: math.fisher, ",
            "",
            r"`merge`: `fisher` merges by the fisher of each source, and `math` has none",
        ),
    ],
)
def test_a_search_that_lacks_a_statistic_is_refused_before_anything_is_written(
    place: Path, old: str, new: str, message: str
) -> None:
    (place / "wrong").mkdir(exist_ok=True)
    for file in place.glob("*.*"):
        shutil.copy(file, place / "wrong")
    path = place / "wrong" / "space.yaml"
    path.write_text(SPACE.replace(old, new), encoding="utf-8")
    with pytest.raises(RequestError, match=message):
        search(path, run=place / "wrong" / "run", serial=True)
    assert not (place / "wrong" / "run").exists()


def test_a_run_is_not_continued_with_other_statistics(run: Run, place: Path, tmp_path: Path) -> None:
    for file in place.glob("*.*"):
        shutil.copy(file, tmp_path)
    shutil.copytree(place / "run", tmp_path / "run")
    search(tmp_path / "space.yaml", run=tmp_path / "run", resume=True, serial=True)
    file = tmp_path / "math.fisher"
    file.unlink()
    evomerge.measure("fisher", "zoo:math", ["1 + 1 ="], file)
    moved = tmp_path / "run" / "run.json"
    moved.write_text(moved.read_text().replace(str(place), str(tmp_path)))
    with pytest.raises(RequestError, match="what was measured on source `math` changed since it was started"):
        search(tmp_path / "space.yaml", run=tmp_path / "run", resume=True, serial=True)
