"""The model card: metadata the hub can read, and nothing claimed that is not so."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from huggingface_hub import ModelCard

from evomerge.checkpoints.licences import Stated, strictest
from evomerge.controller.closing_report import Gain
from evomerge.publish.card import Found, model_card
from evomerge.publish.public import export
from evomerge.publish.source_cards import About
from evomerge.recipe import Merge, ModelRef, Recipe, Slot, from_yaml
from evomerge.types import Measure


def over(base: str, *sources: str) -> Recipe:
    models = {f"m{i}": ModelRef(source=source) for i, source in enumerate((base, *sources))}
    first, *others = models
    merge = Merge(method="task_arithmetic", base=first, sources=tuple(others), params={"weight": 1.0})
    return Recipe(models=models, merges={"merged": merge})


def found(*, verified: bool = True) -> Found:
    return Found(
        run="quick",
        trial=7,
        measures=(
            Measure(name="math", task="gsm", metric="acc", filter="none", higher_is_better=True),
            Measure(name="text", task="wiki", metric="bits", filter="none", higher_is_better=False),
        ),
        search={"math": 0.75, "text": 1.5},
        reported=[
            ("parent m1", {"math": 0.5, "text": 1.25}),
            ("**this model**", {"math": 0.625, "text": 1.125}),
        ],
        item_counts={"gsm": {"search": 40, "report": 60}},
        provenance={"versions": {"torch": "2.9.0", "ray": None}, "started": "2025-01-01", "commit": None},
        verified=verified,
    )


def front_matter(card: str) -> dict[str, Any]:
    empty, content, _ = card.split("---\n", 2)
    assert empty == ""
    parsed: dict[str, Any] = yaml.safe_load(content)
    return parsed


def test_front_matter_names_the_models_of_the_hub_once_each() -> None:
    assert front_matter(model_card(over("owner/base", "owner/base", "zoo:math", "a_b/c-d.e"))) == {
        "library_name": "transformers",
        "tags": ["merge", "evomerge"],
        "base_model": ["owner/base", "a_b/c-d.e"],
        "base_model_relation": "merge",
    }


@pytest.mark.parametrize(
    "source", ["/models/math", "./math", "../math", "~/math", "zoo:math", ".a/math", "math"]
)
def test_what_is_not_of_the_hub_is_no_base_model(source: str) -> None:
    assert set(front_matter(model_card(over(source, source)))) == {"library_name", "tags"}


def test_a_folder_that_reads_like_a_hub_id_is_published_as_a_folder(
    models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(models.parent)
    target = export(over("models/math", "./models/lang"), models.parent / "out")
    card = (target / "README.md").read_text()
    assert "base_model" not in front_matter(card)
    assert "models/math" not in card
    recipe = from_yaml((target / "recipe.yaml").read_text())
    assert [ref.source for ref in recipe.models.values()] == ["math", "lang"]
    assert all(ref.digest for ref in recipe.models.values())


def test_a_stack_is_told_by_its_runs_of_layers() -> None:
    layers = (("a", 0), ("a", 1), ("b", 2), ("b", 3), ("b", 3), ("a", 5), ("a", 4))
    path = tuple(Slot(model=model, layer=layer, scale=1.5) for model, layer in layers)
    models = {name: ModelRef(source=f"owner/{name}") for name in "ab"}
    card = model_card(Recipe(models=models, path=path))
    assert "by stacking 7 layers (a 0–1, b 2–3, b 3, a 5, a 4) from:" in card


def test_the_recipe_in_the_card_is_the_recipe() -> None:
    recipe = over("owner/base", "zoo:math")
    text = model_card(recipe).split("```yaml\n")[1].split("```")[0]
    assert from_yaml(text) == recipe


def test_scores_stand_in_a_table() -> None:
    card = model_card(over("owner/base", "zoo:math"), found())
    table = [line for line in card.splitlines() if line.startswith("|")]
    assert table == [
        "| model | math (acc ↑) | text (bits ↓) |",
        "|---|---|---|",
        "| parent m1 | 0.5000 | 1.2500 |",
        "| **this model** | 0.6250 | 1.1250 |",
    ]
    assert "gsm: 40 searched, 60 reported" in card
    assert "run `quick`, trial 7" in card
    assert "torch 2.9.0" in card
    assert "ray" not in card


def test_a_recipe_of_unknown_origin_has_no_scores() -> None:
    card = model_card(over("owner/base", "zoo:math"))
    assert "## Scores" not in card
    assert "scored" not in card


def test_only_a_checkpoint_that_is_verified_is_said_to_be() -> None:
    recipe = over("owner/base", "zoo:math")
    scored = "this model scored math 0.7500, text 1.5000; this checkpoint was "
    assert scored + "scored again on them, with the same result." in model_card(recipe, found())
    assert scored + "not scored again." in model_card(recipe, found(verified=False))


def test_the_hubs_own_reader_finds_what_the_card_states() -> None:
    told = replace(found(), own="**this model**", few_shot=3)
    known = About(
        licence=strictest({"a": Stated(license="mit"), "b": Stated(license="cc-by-nc-4.0")}),
        languages=("en", "ja"),
    )
    data: Any = ModelCard(
        model_card(over("owner/base", "owner/math"), told, about=known, name="my-merge")
    ).data
    assert (data.license, data.language, data.base_model) == (
        "cc-by-nc-4.0", ["en", "ja"], ["owner/base", "owner/math"],
    )  # fmt: skip
    assert data.tags == ["merge", "evomerge"]
    assert data.to_dict()["base_model_relation"] == "merge"
    assert data.model_name == "my-merge"
    assert data.eval_results is not None
    results = [
        (each.dataset_name, each.metric_type, each.metric_name, each.metric_value)
        for each in data.eval_results
    ]
    assert results == [("gsm", "acc", "acc,none", 0.625), ("wiki", "bits", "bits,none", 1.125)]
    assert {each.dataset_split for each in data.eval_results} == {"60 held-out items", "0 held-out items"}
    assert data.eval_results[0].dataset_args == {"num_few_shot": 3}
    assert data.eval_results[0].verified is False


def test_a_model_without_reported_scores_has_no_results() -> None:
    assert "model-index" not in front_matter(model_card(over("owner/base", "zoo:math"), found()))


def test_gains_stand_in_a_table_with_their_intervals() -> None:
    gain = Gain(
        measure="math", trial=7, rival=1, over="parent m1", as_best=("parent", "baseline"), gain=0.125,
        low=-0.0123, high=0.2623, p=0.04, items=60, verdict="not proven",
    )  # fmt: skip
    bare = replace(gain, measure="text", low=None, high=None, verdict="not known")
    card = model_card(over("owner/base", "zoo:math"), replace(found(), gains=[gain, bare]))
    over_both = "parent m1 (best parent and best baseline)"
    rows = [line for line in card.splitlines() if over_both in line]
    assert rows == [
        f"| math | {over_both} | +0.1250 | -0.0123 to +0.2623 | 60 | not proven |",
        f"| text | {over_both} | +0.1250 | none | 60 | not known |",
    ]
    assert "## Gains" not in model_card(over("owner/base", "zoo:math"), found())
