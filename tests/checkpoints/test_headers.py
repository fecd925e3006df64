"""A safetensors header is believed only as far as its file bears it out."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from evomerge.checkpoints.headers import TensorSpec, read_header
from evomerge.errors import CheckpointError


def entry(start: int, stop: int, *, shape: Any = (2,), dtype: Any = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


def write(path: Path, header: Any, *, data: int, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    claimed = len(text) if length is None else length
    path.write_bytes(struct.pack("<Q", claimed) + text + bytes(data))
    return path


def test_what_the_library_writes_is_read(tmp_path: Path) -> None:
    tensors = {
        "w": torch.zeros(2, 3, dtype=torch.bfloat16),
        "scalar": torch.zeros(()),
        "empty": torch.zeros(0, 4),
        "steps": torch.zeros(3, dtype=torch.int64),
    }
    save_file(tensors, tmp_path / "x.safetensors", metadata={"format": "pt"})
    assert read_header(tmp_path / "x.safetensors") == {
        "w": TensorSpec(dtype="BF16", shape=(2, 3)),
        "scalar": TensorSpec(dtype="F32", shape=()),
        "empty": TensorSpec(dtype="F32", shape=(0, 4)),
        "steps": TensorSpec(dtype="I64", shape=(3,)),
    }


def test_a_spec_knows_its_bytes_and_whether_it_can_be_merged() -> None:
    assert TensorSpec(dtype="BF16", shape=(2, 3)).nbytes == 12
    assert TensorSpec(dtype="F64", shape=()).nbytes == 8
    assert TensorSpec(dtype="F16", shape=(1,)).is_float
    assert not TensorSpec(dtype="I64", shape=(1,)).is_float


def test_a_sound_file_written_by_hand_is_read(tmp_path: Path) -> None:
    """The files below are this one with one thing wrong."""
    file = write(tmp_path / "x", {"a": entry(0, 8), "b": entry(8, 16)}, data=16)
    assert list(read_header(file)) == ["a", "b"]


def test_tensors_may_lie_in_any_order(tmp_path: Path) -> None:
    file = write(tmp_path / "x", {"a": entry(8, 16), "b": entry(0, 8)}, data=16)
    assert list(read_header(file)) == ["a", "b"]


@pytest.mark.parametrize(
    "header",
    [
        {"a": entry(0, 8), "b": entry(4, 12)},
        {"a": entry(0, 8), "b": entry(0, 8)},
        {"a": entry(0, 8), "b": entry(12, 20)},
        {"a": entry(4, 12)},
        {"a": entry(0, 8, shape=(3,))},
        {"a": entry(0, 8, dtype="F64")},
        {"a": entry(8, 0)},
    ],
    ids=["overlapping", "shared", "gapped", "late start", "wrong shape", "wrong dtype", "backwards"],
)
def test_tensors_that_do_not_lie_where_they_say_are_refused(header: dict[str, Any], tmp_path: Path) -> None:
    data = max(value["data_offsets"][1] for value in header.values())
    with pytest.raises(CheckpointError, match=r"tensor `[ab]` does not lie where its shape and dtype put it"):
        read_header(write(tmp_path / "x", header, data=data))


@pytest.mark.parametrize("data", [0, 7, 9, 100])
def test_missing_and_surplus_bytes_are_refused(data: int, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"its tensors take 8 bytes, but {data} follow the header"):
        read_header(write(tmp_path / "x", {"a": entry(0, 8)}, data=data))


@pytest.mark.parametrize("size", [0, 3, 8, 9, 20])
def test_a_file_cut_off_in_its_header_is_refused(size: int, tmp_path: Path) -> None:
    file = write(tmp_path / "x", {"a": entry(0, 8)}, data=8)
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(
        CheckpointError, match=r"its header claims \d+ of \d+ bytes; download or copy it again"
    ):
        read_header(file)


@pytest.mark.parametrize("length", [0, 1, 1_000, 1 << 40, (1 << 64) - 1])
def test_a_header_length_beyond_the_file_is_refused(length: int, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=f"its header claims {length} of"):
        read_header(write(tmp_path / "x", {"a": entry(0, 8)}, data=8, length=length))


def test_a_header_length_within_the_file_but_wrong_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not that of a safetensors file"):
        read_header(write(tmp_path / "x", {"a": entry(0, 8)}, data=8, length=30))


def test_an_unknown_dtype_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="tensor `a` has the unknown dtype F4"):
        read_header(write(tmp_path / "x", {"a": entry(0, 8, dtype="F4")}, data=8))


@pytest.mark.parametrize(
    "header",
    [
        b"not JSON at all",
        b"\xff\xfe\x00\x01",
        pytest.param(b"[" * 100_000, id="deeply nested"),
        b"[1, 2]",
        {"a": 3},
        {"a": {"dtype": "F32", "shape": [2]}},
        {"a": {"dtype": "F32", "data_offsets": [0, 8]}},
        {"a": {"shape": [2], "data_offsets": [0, 8]}},
        {"a": entry(0, 8, dtype=["F32"])},
        {"a": entry(0, 8, shape=("two",))},
        {"a": entry(0, 8, shape=(-1, -2))},
        {"a": entry(0, 8, shape=(2.0,))},
        {"a": {"dtype": "F32", "shape": "2", "data_offsets": [0, 8]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8, 16]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": "08"}},
        {"a": {"dtype": "F32", "shape": [0], "data_offsets": [-8, -8]}},
        {"a": entry(0, 8), "huge": {"dtype": "F32", "shape": [1 << 63, 0], "data_offsets": [8, 8]}},
        {"a": entry(0, 8), "__metadata__": {"a": [1]}},
        {"a": entry(0, 8), "__metadata__": []},
        b'{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}, '
        b'"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
        b'{"\\ud800": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}',
        '{"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}}'.encode("utf-16"),
    ],
    ids=str,
)
def test_a_header_of_another_form_is_refused(header: Any, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="its header is not that of a safetensors file"):
        read_header(write(tmp_path / "x", header, data=8))


def test_the_message_names_the_file(tmp_path: Path, write_file: Callable[..., Path]) -> None:
    file = write_file(tmp_path / "model.safetensors", {"a": (2,)})
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"model\.safetensors is not a whole safetensors file"):
        read_header(file)
