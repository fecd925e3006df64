"""Merges of models with different vocabularies, and of tied with untied models."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from evomerge import merge_tensors
from evomerge.checkpoints.compatible import check_compatible
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.tensors import open_library
from evomerge.errors import CheckpointError, MergeError, RecipeError
from evomerge.merge.execute import Execution
from evomerge.merge.memory import ResidentModel
from evomerge.merge.plan import Plan
from evomerge.merge.planning import compile_plan
from evomerge.recipe import Group, Merge, ModelRef, Recipe
from tests.checkpoints.making import save_model, word_level
from tests.merge.test_informed import write_statistics

EMBED, HEAD = "model.embed_tokens.weight", "lm_head.weight"
WORDS = {"base": ["a", "b"], "math": ["b", "x", "a"], "lang": ["y", "b", "x"]}
ROWS = {"base": 6, "math": 6, "lang": 8}  # one row of padding, none, two
Models: TypeAlias = dict[str, Checkpoint]


@pytest.fixture
def models(tmp_path: Path) -> Models:
    for seed, (name, words) in enumerate(WORDS.items()):
        save_model(tmp_path / name, word_level(words), seed=seed, rows=ROWS[name])
    return {name: open_checkpoint(tmp_path / name) for name in WORDS}


def recipe(
    tokenizer: str | None,
    *,
    method: str = "task_arithmetic",
    base: str | None = "base",
    sources: tuple[str, ...] = ("math", "lang"),
    weight: Any = 1.0,
    groups: tuple[Group, ...] = (),
    untie: bool = False,
) -> Recipe:
    merge = Merge(method=method, base=base, sources=sources, params={"weight": weight}, groups=groups)
    names = dict.fromkeys((*sources, *((base,) if base else ())))
    refs = {name: ModelRef(source=name) for name in names}
    return Recipe(models=refs, merges={"m": merge}, tokenizer=tokenizer, untie=untie)


def made(plan: Plan, models: Models) -> dict[str, Tensor]:
    library = open_library(models, models)
    execution = Execution(plan, library)
    tensors = {output.name: execution.produce(output) for output in plan.outputs}
    for output in plan.outputs:
        assert tuple(tensors[output.name].shape) == output.spec.shape
    library.close()
    return tensors


def stored(model: Checkpoint) -> dict[str, Tensor]:
    return load_file(model.path / "model.safetensors")


def row(models: Models, model: str, word: str, tensor: str = EMBED) -> Tensor:
    """Return the row of one of the model's own words (three special tokens come first)."""
    return stored(models[model])[tensor][3 + WORDS[model].index(word)]


@pytest.mark.parametrize("tensor", [EMBED, HEAD])
def test_base_adds_what_each_model_says_of_the_bases_tokens(tensor: str, models: Models) -> None:
    plan = compile_plan(recipe("base"), models)
    merged = made(plan, models)[tensor]
    assert plan.config["vocab_size"] == len(merged) == 6
    base = stored(models["base"])[tensor]
    for i, word in enumerate(WORDS["base"], start=3):
        deltas = [
            row(models, name, word, tensor) - base[i] for name in ("math", "lang") if word in WORDS[name]
        ]
        torch.testing.assert_close(merged[i], base[i] + sum(deltas))
    assert torch.equal(merged[5], base[5]), "padding is the base's"


def test_base_with_weights_of_zero_is_the_base_to_the_bit(models: Models) -> None:
    merged = made(compile_plan(recipe("base", weight=0.0), models), models)
    base = stored(models["base"])
    assert merged.keys() == base.keys()
    assert all(torch.equal(merged[name], base[name]) for name in base)


@pytest.mark.parametrize("tensor", [EMBED, HEAD])
def test_union_gives_a_missing_token_the_mean_of_its_owners(tensor: str, models: Models) -> None:
    plan = compile_plan(recipe("union", weight={"math": 0.5, "lang": 0.25}), models)
    merged = made(plan, models)[tensor]
    assert plan.config["vocab_size"] == len(merged) == 7  # the special ones, a, b, x, y
    x = {name: row(models, name, "x", tensor) for name in ("math", "lang")}
    middle = (x["math"] + x["lang"]) / 2
    torch.testing.assert_close(merged[5], middle + 0.5 * (x["math"] - middle) + 0.25 * (x["lang"] - middle))
    torch.testing.assert_close(merged[6], row(models, "lang", "y", tensor))
    a = row(models, "base", "a", tensor)
    torch.testing.assert_close(merged[3], a + 0.5 * (row(models, "math", "a", tensor) - a))


def test_a_models_name_gives_that_models_words(models: Models) -> None:
    plan = compile_plan(recipe("lang", weight={"math": 0.0, "lang": 1.0}), models)
    merged = made(plan, models)
    for tensor in (EMBED, HEAD):
        torch.testing.assert_close(merged[tensor], stored(models["lang"])[tensor])
    assert plan.config["vocab_size"] == ROWS["lang"]
    assert plan.tokenizer is not None
    assert plan.tokenizer.folder == models["lang"].path


def test_a_method_without_a_base_averages_what_it_can(models: Models) -> None:
    plan = compile_plan(recipe("union", method="linear", base=None), models)
    merged = made(plan, models)[EMBED]
    # math comes first: <s> </s> <unk> b x a, then y
    torch.testing.assert_close(merged[3], (row(models, "math", "b") + row(models, "lang", "b")) / 2)
    torch.testing.assert_close(merged[5], row(models, "math", "a"))
    torch.testing.assert_close(merged[6], row(models, "lang", "y"))


def test_a_base_the_method_does_not_use_still_gives_its_rows(models: Models) -> None:
    plan = compile_plan(recipe("base", method="linear"), models)
    assert plan.models == ("base", "math", "lang")
    merged = made(plan, models)[EMBED]
    torch.testing.assert_close(merged[3], (row(models, "math", "a") + row(models, "base", "a")) / 2)


def pad(folder: Path, rows: int) -> Checkpoint:
    save_model(folder, word_level(["a", "b"]), seed=rows, rows=rows)
    return open_checkpoint(folder)


@pytest.mark.parametrize("base", [6, 8, 5])
def test_padding_alone_needs_no_word_on_tokenizers(base: int, tmp_path: Path) -> None:
    models = {"base": pad(tmp_path / "base", base), "math": pad(tmp_path / "math", 7)}
    check_compatible(models)
    plan = compile_plan(recipe(None, sources=("math",)), models)
    merged = made(plan, models)
    assert plan.config["vocab_size"] == base
    for name in (EMBED, HEAD):
        both = min(base, 7)
        assert len(merged[name]) == base
        torch.testing.assert_close(merged[name][:both], stored(models["math"])[name][:both])
        assert torch.equal(merged[name][both:], stored(models["base"])[name][both:])


def test_other_tokens_without_the_key_are_refused_by_its_name(models: Models) -> None:
    with pytest.raises(
        CheckpointError, match="match their tokens with `tokenizer: base`, `union` or a model"
    ):
        check_compatible(models)
    check_compatible(models, by_token=True)


def test_other_widths_are_refused_also_with_the_key(models: Models, tmp_path: Path) -> None:
    save_model(tmp_path / "thin", word_level(["a"]), seed=0, hidden_size=4)
    with pytest.raises(CheckpointError, match="`thin` cannot be merged with `base`"):
        check_compatible({"base": models["base"], "thin": open_checkpoint(tmp_path / "thin")}, by_token=True)


def test_a_tokenizer_of_nobody_is_refused(models: Models) -> None:
    with pytest.raises(RecipeError, match="`tokenizer` is `base`, `union` or a model that is merged"):
        compile_plan(recipe("mth"), models)


def test_planning_reads_no_tokenizer_twice(models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    first = compile_plan(recipe("union"), models)
    monkeypatch.setattr("evomerge.checkpoints.vocabulary.union", None)
    monkeypatch.setattr("evomerge.checkpoints.vocabulary.token_table", None)
    again = compile_plan(recipe("union", weight=0.5), models)
    assert again.tokenizer is first.tokenizer
    operands = [
        plan.outputs[[o.name for o in plan.outputs].index(EMBED)].operation.operands  # type: ignore[union-attr]
        for plan in (first, again)
    ]
    assert operands[0] == operands[1]


def test_the_model_in_memory_is_built_for_its_words(models: Models) -> None:
    library = open_library(models, models)
    resident = ResidentModel(library, device=torch.device("cpu"))
    sizes = []
    for tokenizer in ("base", "union", "lang"):
        live = resident.load(compile_plan(recipe(tokenizer), models))
        sizes.append((live.config.vocab_size, live.get_input_embeddings().weight.shape[0]))
    assert sizes == [(6, 6), (7, 7), (8, 8)]
    assert resident.load(compile_plan(recipe("lang", weight=0.5), models)) is live
    library.close()


def test_values_that_are_not_finite_are_found_in_gathered_rows(models: Models) -> None:
    tensors = stored(models["lang"])
    tensors[EMBED][3] = torch.nan
    save_file(tensors, models["lang"].path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(MergeError, match=f"`{EMBED}` of model `lang` holds NaN"):
        made(compile_plan(recipe("union"), models), models)


FAMILIES: Mapping[str, dict[str, Any]] = {
    "llama": {},
    "gpt2": {"n_embd": 8, "n_layer": 2, "n_head": 2, "n_positions": 64},
}
OTHER = (Group(modules=("embed",), params={"weight": 0.5}), Group(modules=("head",), params={"weight": 0.25}))


@pytest.mark.parametrize("tokenizer", [None, "union"])
@pytest.mark.parametrize("tied_source", [True, False])
@pytest.mark.parametrize("tied_base", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("untie", [False, True])
def test_the_output_is_tied_if_every_model_is_unless_it_is_untied(
    family: str,
    tied_base: bool,
    tied_source: bool,
    tokenizer: str | None,
    untie: bool,
    tmp_path: Path,
) -> None:
    words = {"base": ["a", "b"], "math": ["b", "a"] if tokenizer else ["a", "b"]}
    for i, (name, tied) in enumerate({"base": tied_base, "math": tied_source}.items()):
        core = word_level(words[name])
        save_model(tmp_path / name, core, seed=i, tied=tied, family=family, **FAMILIES[family])
    models = {name: open_checkpoint(tmp_path / name) for name in words}
    plan = compile_plan(recipe(tokenizer, sources=("math",), groups=OTHER, untie=untie), models)
    tied = tied_base and tied_source and not untie
    assert plan.config["tie_word_embeddings"] is tied
    merged = made(plan, models)
    assert (HEAD in merged) is not tied
    library = open_library(models, models)
    live = ResidentModel(library, device=torch.device("cpu")).load(plan)
    embed, head = live.get_input_embeddings().weight, live.get_output_embeddings().weight
    assert (head is embed) is tied
    order = [0, 1, 2, 4, 3] if tokenizer else [0, 1, 2, 3, 4]  # where math keeps the base's tokens
    weight = {"embed": 0.5, "head": 0.5 if tied else 0.25}
    for module, found in (("embed", embed), ("head", head)):
        base, math = (
            vectors(models[name], module, tied) for name, tied in (("base", tied_base), ("math", tied_source))
        )
        torch.testing.assert_close(found, base + weight[module] * (math[order] - base))
    library.close()


def vectors(model: Checkpoint, module: str, tied: bool) -> Tensor:
    """Return the embedding, or the head, as the model on disk has it."""
    tensors = stored(model)
    if module == "head" and not tied:
        return tensors[HEAD]
    return next(tensor for name, tensor in tensors.items() if "embed_tokens" in name or "wte" in name)


def test_a_copied_head_on_disk_is_not_merged_apart(tmp_path: Path) -> None:
    """Two tied models, of which the template was saved with a copy of its embedding."""
    for i, name in enumerate(("base", "math")):
        save_model(tmp_path / name, word_level(["a"]), seed=i, tied=True)
    file = tmp_path / "base" / "model.safetensors"
    tensors = load_file(file)
    save_file(tensors | {HEAD: tensors[EMBED].clone()}, file, metadata={"format": "pt"})
    models = {name: open_checkpoint(tmp_path / name) for name in ("base", "math")}
    plan = compile_plan(recipe(None, sources=("math",)), models)
    assert plan.config["tie_word_embeddings"] is True
    assert HEAD not in [output.name for output in plan.outputs]


def test_a_head_of_an_unknown_type_cannot_be_untied(
    tmp_path: Path,
    write_checkpoint: Callable[..., Checkpoint],
    llama_tensors: Callable[..., dict[str, Tensor]],
) -> None:
    models = {name: write_checkpoint(name, llama_tensors(0, tied=True)) for name in ("base", "math")}
    for model in models.values():
        model.config["model_type"] = "nothing"  # type: ignore[index]
    with pytest.raises(RecipeError, match="cannot be untied; leave out `untie`"):
        compile_plan(recipe(None, sources=("math",), untie=True), models)


SIZES = ({EMBED: torch.ones(3, 2)}, {EMBED: torch.full((2, 4), 3.0)})


def test_tensors_of_other_shapes_stay_an_error() -> None:
    with pytest.raises(
        MergeError, match=r"`model\.embed_tokens\.weight` of model1 is \[2, 4\], not \[3, 2\]"
    ):
        merge_tensors("linear", None, SIZES, {"weight": 1.0})
    with pytest.raises(MergeError, match="of model0 is"):
        merge_tensors("task_arithmetic", SIZES[0], SIZES[1:], {"weight": 1.0}, compat="mergekit")


def test_mergekits_linear_and_slerp_cut_embeddings_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        merged = merge_tensors("linear", None, SIZES, {"weight": 1.0}, compat="mergekit")
    assert torch.equal(merged[EMBED], torch.full((2, 2), 2.0))
    assert "cut to the common part" in caplog.text
    merged = merge_tensors("slerp", SIZES[0], SIZES[1:], {"t": 0.5}, compat="mergekit")
    assert torch.equal(merged[EMBED], torch.full((2, 2), 2.0))
    plain = [{"model.layers.0.attention.output.weight": model[EMBED]} for model in SIZES]
    with pytest.raises(MergeError, match="of model1 is"):
        merge_tensors("linear", None, plain, {"weight": 1.0}, compat="mergekit")


@pytest.mark.parametrize("tokenizer", ["base", "union"])
@pytest.mark.parametrize("tensor", [EMBED, HEAD])
def test_what_was_measured_on_a_token_goes_with_it(tensor: str, tokenizer: str, models: Models) -> None:
    names = ("math", "lang")
    known = {name: {each: t.square() for each, t in stored(models[name]).items()} for name in names}
    measured = {
        name: replace(
            models[name],
            statistics={"fisher": write_statistics(models[name].path / "f.st", "fisher", known[name])},
        )
        for name in names
    }
    merge = Merge(method="fisher", sources=names, params={"normalize": "none", "floor": 0.0})
    asked = Recipe(
        models={name: ModelRef(source=name) for name in names}, merges={"m": merge}, tokenizer=tokenizer
    )
    found = made(compile_plan(asked, measured), measured)[tensor]
    ours, theirs = (row(models, name, "x", tensor) for name in names)
    expected = (ours**3 + theirs**3) / (ours**2 + theirs**2)
    torch.testing.assert_close(found[3 + WORDS["math"].index("x")], expected)
    torch.testing.assert_close(found[3 + WORDS["math"].index("a")], row(models, "math", "a", tensor))
    if tokenizer == "union":
        torch.testing.assert_close(found[6], row(models, "lang", "y", tensor))
