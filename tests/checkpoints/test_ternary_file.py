"""Files of compressed task vectors: restored to the bit, refused over another base or if damaged."""

import json
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from evomerge.checkpoints.tensors import DictSource
from evomerge.checkpoints.ternary import CODINGS, Ternary, pack
from evomerge.checkpoints.ternary_file import RestoredSource, TernaryFile, restore, write_ternary
from evomerge.errors import CheckpointError

VECTORS = {
    "a": torch.tensor([[0.0, 0.5, -0.5], [0.0, 0.0, 0.5]]),
    "b": torch.tensor([0.0] * 30 + [-0.25] + [0.0] * 8),
    "nothing": torch.zeros(0, 3),
    "zero": torch.zeros(()),
}


def base(dtype: torch.dtype = torch.bfloat16) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    tensors = {
        name: torch.randn(value.shape, generator=generator).to(dtype) for name, value in VECTORS.items()
    }
    return {**tensors, "steps": torch.tensor([3, 4])}


def write(path: Path, coding: str = "golomb") -> Path:
    vectors = ((name, pack(value)) for name, value in VECTORS.items())
    write_ternary(path, vectors, DictSource(base()), coding=coding)
    return path


@pytest.mark.parametrize("coding", CODINGS)
def test_vectors_are_read_back_to_the_bit(coding: str, tmp_path: Path) -> None:
    file = TernaryFile(write(tmp_path / "v.safetensors", coding))
    assert list(file.entries) == list(VECTORS)
    for name, value in VECTORS.items():
        assert torch.equal(file.read(name).tensor(), value)
        assert file.entries[name].dtype == "BF16"
    file.close()
    assert [each.name for each in tmp_path.iterdir()] == ["v.safetensors"]


def test_a_model_is_restored_in_the_dtypes_of_its_base(tmp_path: Path) -> None:
    found = restore(write(tmp_path / "v.safetensors"), DictSource(base()))
    assert list(found) == list(base())
    assert torch.equal(found["steps"], base()["steps"])
    for name, value in VECTORS.items():
        assert torch.equal(found[name], (base()[name].float() + value).bfloat16())


def test_a_file_stands_for_a_source_in_float32(tmp_path: Path) -> None:
    source = RestoredSource(TernaryFile(write(tmp_path / "v.safetensors")), DictSource(base()))
    assert {name: spec.dtype for name, spec in source.specs.items()} == {
        **dict.fromkeys(VECTORS, "BF16"), "steps": "I64"
    }  # fmt: skip
    assert torch.equal(source.read("a"), base()["a"].float() + VECTORS["a"])
    assert torch.equal(source.read("steps"), base()["steps"])
    source.close()


def test_another_base_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "v.safetensors")
    changed = base()
    changed["b"][3] += 1
    other_dtype = base(torch.float32)
    missing = {name: value for name, value in base().items() if name != "b"}
    for tensors in (changed, other_dtype, missing):
        with pytest.raises(CheckpointError, match="another base"):
            restore(path, DictSource(tensors))


def test_writing_checks_the_shapes_of_the_base(tmp_path: Path) -> None:
    for name, vector in (("a", torch.ones(2)), ("c", torch.ones(2))):
        with pytest.raises(CheckpointError, match=f"`{name}` of the base is"):
            write_ternary(tmp_path / "v", iter([(name, pack(vector))]), DictSource(base()))
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_coding_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no coding named `zip`"):
        write(tmp_path / "v", "zip")


@pytest.mark.parametrize("coding", CODINGS)
def test_every_changed_byte_of_the_bits_is_seen(coding: str, tmp_path: Path) -> None:
    content = write(tmp_path / "v", coding).read_bytes()
    start = 8 + struct.unpack("<Q", content[:8])[0]
    assert len(content) > start
    for place in range(start, len(content)):
        damaged = bytearray(content)
        damaged[place] ^= 1
        (tmp_path / "w").write_bytes(damaged)
        with pytest.raises(CheckpointError, match="damaged: the checksum"):
            restore(tmp_path / "w", DictSource(base()))


@pytest.mark.parametrize("key", ["shape", "kept", "scale", "base", "dtype"])
def test_a_changed_entry_is_seen(key: str, tmp_path: Path) -> None:
    def change(metadata: dict[str, str]) -> None:
        tensors = json.loads(metadata["tensors"])
        tensors["a"][key] = {"shape": [6], "kept": 2, "scale": 1.0, "base": "blake2b:0", "dtype": "F16"}[key]
        metadata["tensors"] = json.dumps(tensors)

    rewrite(write(tmp_path / "v"), change)
    with pytest.raises(CheckpointError, match="damaged: the checksum"):
        TernaryFile(tmp_path / "v").read("a")


def test_other_files_are_refused(tmp_path: Path) -> None:
    def newer(metadata: dict[str, str]) -> None:
        metadata["version"] = "2"

    def broken(metadata: dict[str, str]) -> None:
        metadata["tensors"] = '{"a": {}}'

    def strange(metadata: dict[str, str]) -> None:
        metadata["tensors"] = metadata["tensors"].replace("golomb", "zip")

    def more(metadata: dict[str, str]) -> None:
        metadata["tensors"] = metadata["tensors"].replace('"zero"', '"none"')

    for change, message in (
        (newer, "version 1: its format and version are evomerge-ternary and 2"),
        (broken, "damaged: its list"),
        (strange, "damaged: its list"),
        (more, "damaged: it has no `none:gaps`"),
    ):
        path = rewrite(write(tmp_path / "v"), change)
        with pytest.raises(CheckpointError, match=message):
            TernaryFile(path)


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "v")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="not a whole safetensors file"):
        TernaryFile(path)


def test_a_tensor_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="named `c`"):
        TernaryFile(write(tmp_path / "v")).read("c")


def test_inner_products_of_files_need_one_base(tmp_path: Path) -> None:
    one = TernaryFile(write(tmp_path / "v"))
    length = sum(float(value.double().square().sum()) for value in VECTORS.values())
    assert one.dot(TernaryFile(write(tmp_path / "w", "bitmap"))) == pytest.approx(length)
    changed = {**base(), "a": torch.zeros(2, 3)}
    write_ternary(tmp_path / "x", iter([("a", pack(VECTORS["a"]))]), DictSource(changed))
    with pytest.raises(CheckpointError, match="not of the same tensors of one base"):
        one.dot(TernaryFile(tmp_path / "x"))


def test_vectors_are_taken_one_at_a_time(tmp_path: Path) -> None:
    alive: list[str] = []

    def vectors() -> Iterator[tuple[str, Ternary]]:
        for name, value in VECTORS.items():
            alive.append(name)
            yield name, pack(value)

    source = DictSource(base())
    seen: list[list[str]] = []
    read = source.read

    def spy(name: str, device: torch.device | None = None) -> Tensor:
        seen.append(list(alive))
        return read(name, device)

    source.read = spy  # type: ignore[method-assign]
    write_ternary(tmp_path / "v", vectors(), source)
    assert [len(each) for each in seen] == [1, 2, 3, 4]


def rewrite(path: Path, change: object) -> Path:
    """Change the metadata of a safetensors file in place."""
    content = path.read_bytes()
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    assert callable(change)
    change(header["__metadata__"])
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])
    return path
