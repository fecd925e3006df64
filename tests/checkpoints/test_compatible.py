"""Models that cannot be merged are refused with the difference."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import pytest

from evomerge.checkpoints.architecture import Architecture
from evomerge.checkpoints.compatible import check_compatible, vocabulary
from evomerge.checkpoints.folder import open_checkpoint
from evomerge.errors import CheckpointError

Shapes: TypeAlias = dict[str, tuple[int, ...]]


@pytest.fixture
def check(
    write_model: Callable[..., Path], llama_shapes: Callable[..., Shapes]
) -> Callable[..., Architecture]:
    """Return a function that checks a Llama `one` against an `other` changed as asked."""

    def run(shapes: Shapes | None = None, **changed: Any) -> Architecture:
        one = write_model("one", llama_shapes())
        other = write_model("other", llama_shapes() if shapes is None else shapes, **changed)
        return check_compatible({"one": open_checkpoint(one), "other": open_checkpoint(other)})

    return run


def test_models_alike_share_their_structure(check: Callable[..., Architecture]) -> None:
    structure = check()
    assert (structure.model_type, structure.layers) == ("llama", 2)


def test_another_architecture_is_refused(check: Callable[..., Architecture]) -> None:
    with pytest.raises(
        CheckpointError, match="`other` cannot be merged with `one`: its architecture is qwen2, not llama"
    ):
        check(config={"model_type": "qwen2"})


def test_another_number_of_layers_is_refused(
    check: Callable[..., Architecture], llama_shapes: Callable[..., Shapes]
) -> None:
    with pytest.raises(CheckpointError, match=r"`other` .* `one`: its number of layers is 3, not 2"):
        check(llama_shapes(layers=3))


def test_other_layer_names_are_refused(
    check: Callable[..., Architecture], llama_shapes: Callable[..., Shapes]
) -> None:
    renamed = {name.replace("model.", "language."): shape for name, shape in llama_shapes().items()}
    with pytest.raises(
        CheckpointError, match=r"the layer names differ \(language\.layers against model\.layers\)"
    ):
        check(renamed)


def test_another_shape_is_refused_by_tensor(
    check: Callable[..., Architecture], llama_shapes: Callable[..., Shapes]
) -> None:
    shapes = llama_shapes() | {"model.layers.1.mlp.up_proj.weight": (6, 3)}
    with pytest.raises(
        CheckpointError, match=r"`model\.layers\.1\.mlp\.up_proj\.weight` is \[6, 3\], not \[5, 3\]"
    ):
        check(shapes)


def test_a_missing_tensor_is_refused_by_name(
    check: Callable[..., Architecture], llama_shapes: Callable[..., Shapes]
) -> None:
    shapes = llama_shapes()
    del shapes["model.norm.weight"]
    with pytest.raises(CheckpointError, match=r"`other` .* `one`: it has no `model\.norm\.weight`"):
        check(shapes)


def test_a_tied_model_fits_an_untied_one(
    check: Callable[..., Architecture], llama_shapes: Callable[..., Shapes]
) -> None:
    assert check(llama_shapes(head=False)).tied is False


@pytest.mark.parametrize("key", ["num_attention_heads", "num_key_value_heads", "head_dim"])
def test_heads_of_another_size_are_refused_though_shapes_agree(
    key: str, write_model: Callable[..., Path], llama_shapes: Callable[..., Shapes]
) -> None:
    one = write_model("one", llama_shapes(), config={key: 4})
    other = write_model("other", llama_shapes(), config={key: 8})
    with pytest.raises(
        CheckpointError, match=f"`other` cannot be merged with `one`: its `{key}` is 8, not 4"
    ):
        check_compatible({"one": open_checkpoint(one), "other": open_checkpoint(other)})


@pytest.mark.parametrize("key", ["head_dim", "num_key_value_heads"])
def test_what_a_config_leaves_open_differs_from_nothing(
    key: str, write_model: Callable[..., Path], llama_shapes: Callable[..., Shapes]
) -> None:
    one = write_model("one", llama_shapes(), config={key: None})
    other = write_model("other", llama_shapes(), config={key: 8})
    check_compatible({"one": open_checkpoint(one), "other": open_checkpoint(other)})


def test_layers_that_only_draft_may_follow_the_last(check: Callable[..., Architecture]) -> None:
    assert check(config={"num_hidden_layers": 1, "num_nextn_predict_layers": 1}).layers == 2


def test_layers_must_be_as_many_as_the_config_says(check: Callable[..., Architecture]) -> None:
    with pytest.raises(CheckpointError, match=r"`other` has 2 layers, but its config\.json says 7"):
        check(config={"num_hidden_layers": 7})


def test_other_positions_are_a_warning(
    write_model: Callable[..., Path],
    llama_shapes: Callable[..., Shapes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    one = write_model("one", llama_shapes(), config={"rope_theta": 1e4})
    other = write_model("other", llama_shapes(), config={"rope_theta": 1e6})
    check_compatible({"one": open_checkpoint(one), "other": open_checkpoint(other)})
    assert "`rope_theta` of `other` is 1000000.0, of `one` 10000.0" in caplog.text


def test_a_quantised_model_is_refused_by_its_config(check: Callable[..., Architecture]) -> None:
    with pytest.raises(CheckpointError, match=r"`other` is quantised .*config\.json: gptq"):
        check(config={"quantization_config": {"quant_method": "gptq"}})


def test_a_tensor_only_a_source_has_is_refused_by_name(
    check: Callable[..., Architecture], llama_shapes: Callable[..., Shapes]
) -> None:
    shapes = llama_shapes() | {"model.layers.0.self_attn.q_proj.bias": (4,)}
    with pytest.raises(CheckpointError, match=r"it alone has `model\.layers\.0\.self_attn\.q_proj\.bias`"):
        check(shapes)


def test_constants_that_were_once_saved_may_be_missing_or_extra(
    write_model: Callable[..., Path], llama_shapes: Callable[..., Shapes]
) -> None:
    old = llama_shapes() | {"model.layers.0.self_attn.rotary_emb.inv_freq": (4,)}
    new = open_checkpoint(write_model("new", llama_shapes()))
    models = {"old": open_checkpoint(write_model("old", old)), "new": new}
    assert check_compatible(models).layers == 2
    assert check_compatible(dict(reversed(models.items()))).layers == 2


def test_another_vocabulary_is_refused_with_the_counts(check: Callable[..., Architecture]) -> None:
    with pytest.raises(
        CheckpointError,
        match=r"vocabularies differ \(1 tokens missing, 2 extra, 0 with another id\); use models that share",
    ):
        check(vocabulary={"a": 0, "c": 1, "d": 2})


def test_the_same_tokens_with_other_ids_are_refused(check: Callable[..., Architecture]) -> None:
    with pytest.raises(CheckpointError, match=r"0 tokens missing, 0 extra, 2 with another id"):
        check(vocabulary={"a": 1, "b": 0})


def test_a_missing_tokenizer_is_refused(
    write_model: Callable[..., Path], llama_shapes: Callable[..., Shapes]
) -> None:
    folder = write_model("one", llama_shapes())
    (folder / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"one has no tokenizer \(looked for tokenizer\.json"):
        check_compatible({"one": open_checkpoint(folder)})


@pytest.mark.parametrize(
    ("content", "table"),
    [
        ({"model": {"vocab": {"a": 0}}}, {"a": 0}),
        ({"model": {"vocab": {"a": 0}}, "added_tokens": [{"content": "<s>", "id": 1}]}, {"a": 0, "<s>": 1}),
        ({"model": {"vocab": [["a", -1.0], ["b", -2.0]]}}, {"a": 0, "b": 1}),
    ],
    ids=["table", "added tokens", "unigram"],
)
def test_the_vocabulary_is_the_tokens_with_their_ids(
    content: Any, table: dict[str, int], tmp_path: Path
) -> None:
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    assert vocabulary(tmp_path) == table


@pytest.mark.parametrize(
    "content", ["{", "[]", "{}", '{"model": {}}', '{"model": {"vocab": [[]]}}', '{"model": "BPE"}']
)
def test_a_broken_tokenizer_is_refused(content: str, tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"tokenizer\.json is not (a tokenizer|JSON)"):
        vocabulary(tmp_path)


def test_a_tokenizer_that_is_not_json_is_compared_by_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.model").write_bytes(b"\x00words")
    assert vocabulary(tmp_path) == {"tokenizer.model": b"\x00words"}
