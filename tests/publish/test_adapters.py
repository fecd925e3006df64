"""LoRA adapters as sources of recipes and searches: what is exported is what PEFT merges."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

from evomerge.checkpoints.locate import ZOO
from evomerge.controller.public import search
from evomerge.errors import CheckpointError, RecipeError, RequestError, RunError, SpaceError
from evomerge.publish.public import export
from evomerge.recipe import Recipe, from_yaml
from tests.checkpoints.peft_adapters import edit, load, merged_by_peft, save_adapter
from tests.cli.conftest import save_tokenizer
from tests.controller.conftest import ALL_SCORED
from tests.publish.staging import next_search

BASE = ZOO / "models" / "base"
LINEAR = {"target_modules": ["q_proj", "down_proj", "embed_tokens"], "task_type": "CAUSAL_LM"}


@pytest.fixture(scope="module")
def adapters(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two adapters of the zoo's base, one of them by DoRA."""
    folder = tmp_path_factory.mktemp("adapters")
    save_adapter(load(BASE), folder / "math", seed=1, **LINEAR)
    save_adapter(load(BASE), folder / "lang", seed=2, **{**LINEAR, "use_dora": True})
    return folder


@pytest.fixture
def recipe(adapters: Path) -> Callable[..., Recipe]:
    """Return a function that makes the recipe of a merge of both adapters."""

    def make(merge: str, math: str = "", models: str = "") -> Recipe:
        return from_yaml(
            f"models: {{base: {{source: 'zoo:base'}}, math: {{source: {adapters / 'math'}{math}}}, "
            f"lang: {{source: {adapters / 'lang'}}}{models}}}\n"
            f"merges: {{merged: {{{merge}}}}}\ndtype: float32\n"
        )

    return make


def weights(folder: Path) -> dict[str, Tensor]:
    return {name: tensor.detach() for name, tensor in load(folder).state_dict().items()}


def test_exported_task_arithmetic_of_one_adapter_is_the_merge_of_peft(
    recipe: Callable[..., Recipe], adapters: Path, tmp_path: Path
) -> None:
    one = recipe("method: task_arithmetic, base: base, sources: [math], params: {weight: 1.0}")
    made = weights(export(one, tmp_path / "made"))
    for name, tensor in merged_by_peft(load(BASE), adapters / "math").items():
        torch.testing.assert_close(made[name], tensor, rtol=1e-5, atol=1e-6)


def test_task_vectors_of_adapters_are_added_up_without_touching_the_rest(
    recipe: Callable[..., Recipe], adapters: Path, tmp_path: Path
) -> None:
    both = recipe(
        "method: task_arithmetic, base: base, sources: [math, lang], "
        "params: {weight: {math: 1.5, lang: -0.5}}"
    )
    made, base = weights(export(both, tmp_path / "made")), weights(BASE)
    math, lang = (merged_by_peft(load(BASE), adapters / name) for name in ("math", "lang"))
    changed = {name for name in base if not torch.equal(made[name], base[name])}
    assert changed == {name for name in base if not torch.equal(math[name], base[name])}
    for name in changed:
        want = base[name] + 1.5 * (math[name] - base[name]) - 0.5 * (lang[name] - base[name])
        torch.testing.assert_close(made[name], want, rtol=1e-5, atol=1e-6)


def test_a_merge_without_a_base_is_of_the_adapted_models(
    recipe: Callable[..., Recipe], adapters: Path, tmp_path: Path
) -> None:
    alone = recipe("method: linear, sources: [math], params: {weight: 1.0}", math=", adapts: base")
    folder = export(alone, tmp_path / "made")
    for name, tensor in merged_by_peft(load(BASE), adapters / "math").items():
        torch.testing.assert_close(weights(folder)[name], tensor, rtol=1e-5, atol=1e-6)
    assert (folder / "tokenizer.json").read_bytes() == (BASE / "tokenizer.json").read_bytes()
    with pytest.raises(CheckpointError, match=r"`math` is a LoRA adapter, and there is no base to put it on"):
        export(recipe("method: linear, sources: [math]"), tmp_path / "other")


def test_the_written_recipe_pins_the_adapter_and_what_it_adapts(
    recipe: Callable[..., Recipe], adapters: Path, tmp_path: Path
) -> None:
    one = recipe("method: task_arithmetic, base: base, sources: [math], params: {weight: 1.0}")
    folder = export(one, tmp_path / "made")
    written = from_yaml((folder / "recipe.yaml").read_text())
    assert written.models["math"].adapts == "base"
    assert "a LoRA adapter of base" in (folder / "README.md").read_text()
    again = export(written, tmp_path / "again", paths={"math": adapters / "math"})
    assert (again / "model.safetensors").read_bytes() == (folder / "model.safetensors").read_bytes()
    with pytest.raises(RequestError, match="is not the `math` of the recipe"):
        export(written, tmp_path / "third", paths={"math": adapters / "lang"})


def test_a_head_untied_by_an_adapter_is_exported_as_such(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=12, hidden_size=8, intermediate_size=12, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, tie_word_embeddings=True, bos_token_id=1, eos_token_id=1,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(tmp_path / "base")
    save_tokenizer(tmp_path / "base", [f"w{i}" for i in range(12)])
    base = load(tmp_path / "base")
    head = save_adapter(base, tmp_path / "head", target_modules=["q_proj"], modules_to_save=["lm_head"])
    embedding = save_adapter(base, tmp_path / "embedding", target_modules=["embed_tokens"])
    for adapter, tied in ((head, False), (embedding, True)):
        one = from_yaml(
            f"models: {{base: {tmp_path / 'base'}, one: {{source: {adapter}}}}}\n"
            "merges: {merged: {method: task_arithmetic, base: base, sources: [one], params: {weight: 1.0}}}\n"
        )
        folder = export(one, tmp_path / f"made-{adapter.name}")
        assert json.loads((folder / "config.json").read_text())["tie_word_embeddings"] is tied
        assert ("lm_head.weight" in load_file(folder / "model.safetensors")) is not tied
        made = AutoModelForCausalLM.from_pretrained(folder).state_dict()
        for name, tensor in merged_by_peft(base, adapter).items():
            torch.testing.assert_close(made[name], tensor, rtol=1e-5, atol=1e-6)


@pytest.fixture(scope="module")
def space(adapters: Path) -> Path:
    """A space of both adapters over the zoo's base."""
    file = adapters / "small.yaml"
    file.write_text(ALL_SCORED.replace("zoo:math", "./math").replace("zoo:lang", "./lang"))
    return file


def test_a_search_over_adapters_is_recorded_resumed_and_exported(space: Path, tmp_path: Path) -> None:
    run = search(space, run=tmp_path / "run", serial=True, budget=5)
    assert {name: ref.adapts for name, ref in run.record.models.items()} == {
        "base": None,
        "math": "base",
        "lang": "base",
    }
    again = search(space, run=tmp_path / "run", serial=True, budget=8, resume=True)
    assert len(again.frozen_trials) == 8
    export(again, tmp_path / "made")  # scores what it wrote, which must be exactly what was recorded


def test_a_path_takes_layers_of_adapters_and_of_their_merge(space: Path, tmp_path: Path) -> None:
    mine = space.with_name("stacked.yaml")
    path = "path: {form: blocks, models: [math, merged], layers: 2, scale: {low: 0.5, high: 1.5}}\n"
    mine.write_text(space.read_text() + path)
    run = search(mine, run=tmp_path / "run", serial=True, budget=10)
    trials = run.trials()
    assert set(trials["state"]) == {"scored"}
    begun = int(trials[trials["baseline"] == "parent math"]["trial"].iloc[0])
    assert {slot.model for slot in run.recipe(begun).path or ()} == {"math"}
    hybrid = next(n for n in trials["trial"] if run.recipe(n).path and run.recipe(n).merges)
    for number in (begun, hybrid):
        export(run, tmp_path / f"made{number}", trial=number)  # held to the recorded score


def test_a_merge_of_adapters_is_a_source_of_the_next_search_beside_one(
    space: Path, adapters: Path, tmp_path: Path
) -> None:
    run = search(space, run=tmp_path / "run", serial=True, budget=7)
    text = ALL_SCORED.replace("math: zoo:math", "best: RUN").replace("zoo:lang", str(adapters / "lang"))
    target = next_search(run, 6, text, tmp_path)
    card = (target / "README.md").read_text()
    assert "  - **math** (source, a LoRA adapter of base): `math`, content" in card
    assert str(adapters) not in card


def test_changing_an_adapter_or_its_base_ends_a_run(space: Path, adapters: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    shutil.copytree(adapters, mine)
    search(mine / "small.yaml", run=tmp_path / "run", serial=True, budget=4)
    edit(mine / "math", lora_alpha=6)
    with pytest.raises(RunError, match="the content of source `math` changed"):
        search(mine / "small.yaml", run=tmp_path / "run", serial=True, budget=5, resume=True)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        (
            ("./math", "{source: ./math, adapts: bass}"),
            SpaceError,
            r"`sources\.math\.adapts` is unknown: no source named `bass`. Did you mean `base`",
        ),
        (
            ("./math", "{source: ./math, adapts: lang}"),
            CheckpointError,
            r"`sources\.math`: .* for `lang`, which is an adapter, too",
        ),
        (
            ("zoo:base", "{source: 'zoo:base', adapts: math}"),
            CheckpointError,
            r"`sources\.base`: .* is a whole model, so leave out `adapts: math`",
        ),
        (
            ("base: zoo:base", "base: zoo:logic"),
            CheckpointError,
            r"`sources\.math`: `math` is an adapter for another base: it was trained on `.*/base`, and "
            r"`base` is `zoo:logic`; .* say so with `adapts: base`",
        ),
        (
            ("  base: base\n  method: task_arithmetic", "  method: linear\n  sources: [math]"),
            CheckpointError,
            r"`sources\.math`: .* there is no base to put it on; .* or as `adapts` of this source",
        ),
    ],
)
def test_what_an_adapter_cannot_stand_on_is_refused(
    change: tuple[str, str], error: type[RequestError], says: str, space: Path, tmp_path: Path
) -> None:
    shutil.copytree(space.parent, tmp_path / "place")
    file = tmp_path / "place" / space.name
    assert change[0] in file.read_text()
    file.write_text(file.read_text().replace(*change))
    with pytest.raises(error, match=says):
        search(file, run=tmp_path / "run", serial=True, budget=4)
    assert not (tmp_path / "run").exists()


def test_another_name_of_the_base_is_believed_once_it_is_said(adapters: Path, tmp_path: Path) -> None:
    shutil.copytree(adapters / "math", tmp_path / "math")
    edit(tmp_path / "math", base_model_name_or_path="someone/else")
    text = (
        f"models: {{base: zoo:base, math: {{source: {tmp_path / 'math'}}}}}\n"
        "merges: {merged: {method: task_arithmetic, base: base, sources: [math]}}\n"
    )
    with pytest.raises(CheckpointError, match=r"adapter for another base: it was trained on `someone/else`"):
        export(from_yaml(text), tmp_path / "made")
    stated = from_yaml(text.replace("}}\nmerges", ", adapts: base}}\nmerges"))
    assert export(stated, tmp_path / "made").is_dir()
    edit(tmp_path / "math", base_model_name_or_path=None)
    with pytest.raises(CheckpointError, match="does not say what it was trained on"):
        export(from_yaml(text), tmp_path / "other")
    shutil.copytree(BASE, tmp_path / "renamed")
    edit(tmp_path / "math", base_model_name_or_path=str(tmp_path / "renamed"))
    assert export(from_yaml(text), tmp_path / "other").is_dir()


def test_a_recipe_says_so_if_what_is_adapted_is_no_model_of_it(recipe: Callable[..., Recipe]) -> None:
    with pytest.raises(
        RecipeError, match=r"`models\.math\.adapts`: no model named `bass`. Did you mean `base`"
    ):
        recipe("method: linear, sources: [math]", math=", adapts: bass")


def adapted(sources: str = "[x]", **ref: Any) -> Recipe:
    table = ", ".join(f"{key}: {value}" for key, value in {"source": "a", **ref}.items())
    return from_yaml(
        f"models: {{base: b, other: o, x: {{{table}}}}}\n"
        f"merges: {{m: {{method: linear, sources: {sources}}}}}\n"
    )


def test_what_is_adapted_belongs_to_the_key_of_a_recipe() -> None:
    plain, on_base, on_other = adapted(), adapted(adapts="base"), adapted(adapts="other")
    assert len({plain.key, on_base.key, on_other.key}) == 3
    one, another = (adapted("[x, base, other]", adapts=name) for name in ("base", "other"))
    assert one.key != another.key
    assert on_base.used == ("x", "base")
    assert plain.used == ("x",)
