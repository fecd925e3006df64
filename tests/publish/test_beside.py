"""What lies beside the weights: mergekit's recipe, tokenizer, chat template and generation config."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import transformers

from evomerge.checkpoints.folder import open_checkpoint
from evomerge.mergekit.reading import from_mergekit
from evomerge.publish import checkpoint
from evomerge.publish.card import Found
from evomerge.publish.checkpoint import write_checkpoint
from evomerge.publish.mergekit_recipe import mergekit_recipe
from evomerge.publish.public import export
from evomerge.recipe import Group, Merge, ModelRef, Recipe, Slot, from_yaml
from evomerge.recipe.merge import IN_LAYERS

TEMPLATE = "{% for message in messages %}<{{ message.role }}> {{ message.content }}{% endfor %}"


@pytest.fixture
def sources(models: Path) -> Path:
    """Give models of which `math` has a chat template, a generation config and a licence of its own."""
    (models / "math" / "chat_template.jinja").write_text(TEMPLATE)
    (models / "math" / "generation_config.json").write_text(json.dumps({"max_new_tokens": 7, "top_k": 3}))
    (models / "math" / "README.md").write_text("---\nlicense: cc-by-nc-4.0\nlanguage: ja\n---\n")
    (models / "lang" / "README.md").write_text("---\nlicense: mit\nlanguage: [en, ja]\n---\n")
    return models


def refs(sources: Path) -> dict[str, ModelRef]:
    return {name: ModelRef(source=str(sources / name)) for name in ("math", "lang")}


def by_runs(sources: Path) -> Recipe:
    groups = (
        Group(layers=(0, 0), modules=("attn",), params={"weight": {"math": 0.1, "lang": 0.9}}),
        Group(layers=(0, 1), modules=IN_LAYERS, params={"weight": {"math": 0.7, "lang": 0.3}}),
        Group(modules=("embed",), params={"weight": {"math": 0.5, "lang": 0.5}}),
        Group(modules=("head",), params={"weight": {"math": 0.4, "lang": 0.6}}),
    )
    merge = Merge(method="linear", sources=("math", "lang"), groups=groups)
    return Recipe(models=refs(sources), merges={"merged": merge}, dtype="bfloat16")


def stack(sources: Path) -> Recipe:
    return Recipe(models=refs(sources), path=(Slot(model="math", layer=0), Slot(model="lang", layer=1)))


def test_the_card_calls_the_model_by_its_folder_or_as_it_is_uploaded(
    sources: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[str] = []

    def noted(recipe: Recipe, found: Found | None, *, name: str, **others: object) -> str:
        called.append(name)
        return ""

    monkeypatch.setattr(checkpoint, "model_card", noted)
    write_checkpoint(by_runs(sources), tmp_path / "of-the-folder")
    write_checkpoint(by_runs(sources), tmp_path / "other", name="as-uploaded")
    assert called == ["of-the-folder", "as-uploaded"]


@pytest.mark.parametrize("make", [by_runs, stack])
def test_the_tokenizer_and_what_goes_with_it_are_the_templates(
    make: object, sources: Path, tmp_path: Path
) -> None:
    assert callable(make)
    target = export(make(sources), tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(target)
    assert tokenizer.chat_template == TEMPLATE
    assert tokenizer("the cat sat").input_ids == [2, 3, 5]
    assert transformers.GenerationConfig.from_pretrained(target).top_k == 3
    card = (target / "README.md").read_text()
    assert "license: cc-by-nc-4.0\n" in card
    assert "language:\n- ja\n- en\n" in card


@pytest.mark.parametrize("tokenizer", ["base", "union", "lang"])
def test_matched_tokens_keep_a_chat_template(tokenizer: str, sources: Path, tmp_path: Path) -> None:
    merge = Merge(method="linear", sources=("math", "lang"))
    recipe = Recipe(models=refs(sources), merges={"merged": merge}, tokenizer=tokenizer)
    target = export(recipe, tmp_path / "out")
    assert (target / "chat_template.jinja").is_file() == (tokenizer != "lang")  # its own has none
    assert json.loads((target / "generation_config.json").read_text())["top_k"] == 3


def test_mergekits_recipe_lies_beside_ours_and_says_the_same(sources: Path, tmp_path: Path) -> None:
    target = export(by_runs(sources), tmp_path / "out")
    text = (target / "recipe.mergekit.yaml").read_text()
    assert "# Give the folders of math, lang in the place of their names.\n" in text
    theirs, _ = from_mergekit(text, layers_of=lambda model: 2)
    ours = from_yaml((target / "recipe.yaml").read_text())
    checkpoint = open_checkpoint(target)
    compared = set()
    for name in checkpoint.specs:
        layer = int(name.split(".")[2]) if ".layers." in name else None
        module = (
            "embed" if "embed" in name else "head" if layer is None else "attn" if "attn" in name else "mlp"
        )
        module = "rest" if "layernorm" in name else module
        both = [each.merge.settings(name, layer, module, 2)["weight"] for each in (theirs, ours)]
        assert both[0] == both[1], name
        compared.add(module)
    assert compared == {"embed", "head", "attn", "mlp", "rest"}
    assert "`recipe.mergekit.yaml` says the same to mergekit" in (target / "README.md").read_text()


def test_none_lies_there_where_mergekit_has_no_words(sources: Path, tmp_path: Path) -> None:
    path = (Slot(model="math", layer=0, scale=0.9), Slot(model="lang", layer=1))
    target = export(Recipe(models=refs(sources), path=path), tmp_path / "out")
    assert not (target / "recipe.mergekit.yaml").exists()
    assert "recipe.mergekit.yaml" not in (target / "README.md").read_text()


def test_an_export_with_it_can_be_replaced(sources: Path, tmp_path: Path) -> None:
    export(stack(sources), tmp_path / "out")
    export(by_runs(sources), tmp_path / "out", overwrite=True)
    assert "linear" in (tmp_path / "out" / "recipe.mergekit.yaml").read_text()


def test_filters_have_the_names_of_the_models_tensors(tmp_path: Path) -> None:
    from tests.cli.conftest import save_gpt2

    save_gpt2(tmp_path / "gpt2")
    merge = Merge(
        method="linear",
        sources=("a", "b"),
        groups=(
            Group(modules=("attn",), params={"weight": {"a": 0.1, "b": 0.9}}),
            Group(modules=("head",), params={"weight": {"a": 0.2, "b": 0.8}}),
        ),
    )
    models = {name: ModelRef(source=f"o/{name}") for name in "ab"}
    text = mergekit_recipe(Recipe(models=models, merges={"m": merge}), open_checkpoint(tmp_path / "gpt2"))
    assert text is not None
    assert "filter: .attn." in text
    assert "ln_f.weight" in text
