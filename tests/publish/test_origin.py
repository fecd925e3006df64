"""A model made of models that were made: the card names what all began with."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import yaml

from evomerge.archive.run import Run
from evomerge.controller.public import search
from evomerge.errors import RequestError
from evomerge.publish.card import model_card
from evomerge.publish.origin import Origin, on_hub, origins_of
from evomerge.publish.public import export
from evomerge.recipe import Merge, ModelRef, Recipe, from_yaml, to_yaml
from tests.controller.conftest import ALL_SCORED


def linear(**models: ModelRef) -> Recipe:
    return Recipe(models=models, merges={"merged": Merge(method="linear", sources=tuple(models))})


def kept(folder: Path, recipe: Recipe, digest: str | None) -> Path:
    """Return the folder with the recipe and, if it has a digest, the note of a run."""
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    if digest is not None:
        (folder / "made.json").write_text(json.dumps({"digest": digest}))
    return folder


@pytest.fixture
def third(tmp_path: Path) -> Recipe:
    """The recipe of a third stage: each begins with what the one before has made."""
    first = linear(a=ModelRef(source="owner/a"), b=ModelRef(source="zoo:b"))
    place = kept(tmp_path / "one" / "exports" / "trial-3", first, "x")
    second = linear(best=ModelRef(source=str(place), digest="x"), c=ModelRef(source="owner/c"))
    place = kept(tmp_path / "two" / "exports" / "trial-4", second, "y")
    return linear(best=ModelRef(source=str(place), digest="y"), d=ModelRef(source="owner/a"))


def test_base_models_are_those_that_were_not_made(third: Recipe) -> None:
    card = model_card(third, origins=origins_of(third, {}))
    assert yaml.safe_load(card.split("---\n")[1])["base_model"] == ["owner/a", "owner/c"]
    made_of = card[card.index("Made with") :].split("\n\n")
    assert made_of[:2] == [
        "Made with evomerge by `linear` from:",
        "- **best** (source): `two/exports/trial-4`, content `y`, itself made by `linear` from:\n"
        "  - **best** (source): `one/exports/trial-3`, content `x`, itself made by `linear` from:\n"
        "    - **a** (source): `owner/a`\n"
        "    - **b** (source): `zoo:b`\n"
        "  - **c** (source): `owner/c`\n"
        "- **d** (source): `owner/a`",
    ]
    shown = [line for line in card.splitlines() if line.startswith("<summary>")]
    assert shown == [
        "<summary>Recipe of best</summary>",
        "<summary>Recipe of best in the recipe of best</summary>",
    ]
    recipes = [from_yaml(part.split("```")[0]) for part in card.split("```yaml\n")[1:]]
    assert [list(recipe.models) for recipe in recipes] == [["best", "d"], ["best", "c"], ["a", "b"]]
    assert "--source best=FOLDER" in card


def test_what_a_folder_says_of_other_content_does_not_count(third: Recipe) -> None:
    place = Path(third.models["best"].source)
    (place / "made.json").write_text('{"digest": "z"}')
    assert origins_of(third, {}) == {}
    (place / "made.json").write_text("no json")
    assert origins_of(third, {}) == {}
    (place / "made.json").unlink()  # an export has none
    assert list(origins_of(third, {})) == ["best"]
    (place / "recipe.yaml").write_text("models: 3")
    assert origins_of(third, {}) == {}


def test_a_model_that_is_said_to_be_made_of_itself_ends_somewhere(tmp_path: Path) -> None:
    own = linear(a=ModelRef(source=str(tmp_path / "a")))
    kept(tmp_path / "a", own, None)
    assert origins_of(own, {}) == {"a": Origin(recipe=own, origins={})}


def test_a_model_of_the_hub_counts_as_itself(tmp_path: Path) -> None:
    folder = kept(tmp_path / "a", linear(b=ModelRef(source="owner/b")), None)
    assert origins_of(linear(a=ModelRef(source="owner/a")), {"a": folder}) == {}
    assert on_hub("owner/a")
    assert not on_hub("/owner/a")


@pytest.fixture(scope="module")
def second(run: Run, tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that starts from the best of a copy of the other."""
    folder = tmp_path_factory.mktemp("second")
    shutil.copytree(run.folder.path, folder / "stage1")
    (folder / "two.yaml").write_text(ALL_SCORED.replace("math: zoo:math", "best: {run: stage1}"))
    return search(folder / "two.yaml", run=folder / "stage2", serial=True, budget=7)


def test_an_export_says_of_which_trial_it_was_made_and_names_no_place_here(
    second: Run, run: Run, tmp_path: Path
) -> None:
    target = export(second, tmp_path / "out", trial=6)
    card = (target / "README.md").read_text()
    trial = f"stage1/exports/trial-{run.best()}"
    assert f"- **best** (source): `{trial}`, content `blake2b:" in card
    assert "  - **math** (source): `zoo:math`, content `blake2b:" in card
    assert str(second.folder.path.parent) not in card
    written = from_yaml((target / "recipe.yaml").read_text())
    assert written.key == second.recipe(6).key
    assert written.models["best"].source == trial
    remade = export(run, tmp_path / "elsewhere")  # on a machine without the run, by the recipe in the card
    again = export(written, tmp_path / "again", paths={"best": remade})
    assert (again / "model.safetensors").read_bytes() == (target / "model.safetensors").read_bytes()
    assert "itself made by" in (again / "README.md").read_text()


def test_a_checkpoint_of_an_earlier_run_that_is_gone_is_made_again(second: Run, tmp_path: Path) -> None:
    place = Path(second.record.paths["best"])
    before = (place / "model.safetensors").read_bytes()
    shutil.rmtree(place.parent)
    export(second, tmp_path / "out", trial=6)  # held to its score
    assert (place / "model.safetensors").read_bytes() == before
    shutil.rmtree(place.parent)
    place.parent.touch()  # where nothing can be written
    with pytest.raises(RequestError, match=r"^`best` is gone from .*/trial-\d+: no checkpoint can be"):
        export(second, tmp_path / "other", trial=6)
    place.parent.unlink()
