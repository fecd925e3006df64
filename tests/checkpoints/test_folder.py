"""What is, and what is not, a checkpoint folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from evomerge.checkpoints.folder import open_checkpoint
from evomerge.errors import CheckpointError

INDEX = "model.safetensors.index.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with a config and nothing else."""
    folder = tmp_path / "model"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def index(folder: Path, weight_map: Any) -> None:
    (folder / INDEX).write_text(json.dumps({"weight_map": weight_map}))


def test_a_single_file_is_opened(folder: Path, write_file: Callable[..., Path]) -> None:
    file = write_file(folder / "model.safetensors", {"a": (2,), "b": (3, 4)})
    checkpoint = open_checkpoint(folder)
    assert {name: spec.shape for name, spec in checkpoint.specs.items()} == {"a": (2,), "b": (3, 4)}
    assert checkpoint.files == {"a": file, "b": file}
    assert (checkpoint.weight_files, sum(spec.nbytes for spec in checkpoint.specs.values())) == ((file,), 56)
    assert checkpoint.config == {"model_type": "llama"}


def test_shards_are_opened_in_the_order_of_the_index(folder: Path, write_file: Callable[..., Path]) -> None:
    second = write_file(folder / "2.safetensors", {"b": (1,)})
    first = write_file(folder / "1.safetensors", {"a": (1,), "c": (1,)})
    index(folder, {"b": second.name, "a": first.name, "c": first.name})
    checkpoint = open_checkpoint(folder)
    assert list(checkpoint.specs) == ["b", "a", "c"]
    assert checkpoint.files == {"b": second, "a": first, "c": first}
    assert checkpoint.weight_files == (second, first)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no checkpoint folder at .*nowhere"):
        open_checkpoint(tmp_path / "nowhere")


def test_a_folder_without_a_config_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"it has no config\.json"):
        open_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "is not JSON"),
        ("[]", "names no `model_type`"),
        ('{"hidden_size": 3}', "names no `model_type`"),
        ('{"model_type": ""}', "names no `model_type`"),
        (
            '{"model_type": "llama", "auto_map": {"AutoModelForCausalLM": "m.M"}}',
            r"needs code of its own \(`auto_map`",
        ),
    ],
)
def test_an_unusable_config_is_refused(config: str, message: str, folder: Path) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(CheckpointError, match=message):
        open_checkpoint(folder)


def test_a_folder_without_weights_is_refused(folder: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"it has no model\.safetensors and no model\.safetensors\.index"
    ):
        open_checkpoint(folder)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"])
def test_pickled_weights_alone_are_refused_with_the_way_out(name: str, folder: Path) -> None:
    (folder / name).write_bytes(b"")
    with pytest.raises(CheckpointError, match=rf"pickled weights \({name}\).*`save_pretrained`"):
        open_checkpoint(folder)


def test_pickled_weights_beside_safetensors_do_not_matter(
    folder: Path, write_file: Callable[..., Path]
) -> None:
    (folder / "pytorch_model.bin").write_bytes(b"")
    write_file(folder / "model.safetensors", {"a": (2,)})
    assert list(open_checkpoint(folder).specs) == ["a"]


def test_a_missing_shard_is_refused_by_name(folder: Path, write_file: Callable[..., Path]) -> None:
    write_file(folder / "1.safetensors", {"a": (1,)})
    index(folder, {"a": "1.safetensors", "b": "2.safetensors"})
    with pytest.raises(CheckpointError, match=r"incomplete: the shard 2\.safetensors is missing"):
        open_checkpoint(folder)


@pytest.mark.parametrize("place", ["../outside.safetensors", "sub/x.safetensors", "..", ".", "", "ABSOLUTE"])
def test_a_shard_outside_the_folder_is_refused(
    place: str, folder: Path, write_file: Callable[..., Path]
) -> None:
    outside = write_file(folder.parent / "outside.safetensors", {"a": (1,)})
    index(folder, {"a": str(outside) if place == "ABSOLUTE" else place})
    with pytest.raises(CheckpointError, match="which leaves the folder"):
        open_checkpoint(folder)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"weight_map": 3}', '{"weight_map": ["a"]}'])
def test_an_index_of_another_form_is_refused(content: str, folder: Path) -> None:
    (folder / INDEX).write_text(content)
    with pytest.raises(CheckpointError, match=r"is not (an index of safetensors shards|JSON)"):
        open_checkpoint(folder)


def test_a_tensor_in_two_files_is_refused_by_name(folder: Path, write_file: Callable[..., Path]) -> None:
    for name in ("1", "2"):
        write_file(folder / f"{name}.safetensors", {"twice": (1,), name: (1,)})
    index(folder, {"twice": "1.safetensors", "1": "1.safetensors", "2": "2.safetensors"})
    with pytest.raises(CheckpointError, match="tensor `twice` stands in two files"):
        open_checkpoint(folder)


def test_a_folder_of_no_tensors_is_refused(folder: Path, write_file: Callable[..., Path]) -> None:
    write_file(folder / "model.safetensors", {})
    with pytest.raises(CheckpointError, match="holds no tensors"):
        open_checkpoint(folder)
