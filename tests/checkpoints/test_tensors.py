"""Tensors come as stored, or in float32 and finite."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evomerge.checkpoints.dtypes import CODES, DTYPES
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.checkpoints.headers import ITEM_BYTES, TensorSpec
from evomerge.checkpoints.tensors import DictSource, FileSource, Library, open_library
from evomerge.errors import CheckpointError, MergeError

TENSORS = {
    "half": torch.tensor([0.1, 2.0], dtype=torch.bfloat16),
    "steps": torch.tensor([1, 2, 3]),
    "nan": torch.tensor([1.0, float("nan")]),
    "inf": torch.tensor([float("-inf")]),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Checkpoint:
    save_file(TENSORS, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    return open_checkpoint(tmp_path)


@pytest.fixture(params=["mapped", "in memory"])
def library(request: pytest.FixtureRequest, checkpoint: Checkpoint) -> Iterator[Library]:
    if request.param == "mapped":
        library = open_library({"math": checkpoint}, ["math"])
    else:
        library = Library({"math": DictSource(TENSORS)})
    yield library
    library.close()


@pytest.mark.parametrize("name", ["half", "steps"])
def test_raw_tensors_are_as_stored(name: str, library: Library) -> None:
    found = library.raw("math", name)
    assert found.dtype == TENSORS[name].dtype
    assert torch.equal(found, TENSORS[name])


def test_float32_widens_without_rounding(library: Library) -> None:
    found = library.float32("math", "half")
    assert found.dtype == torch.float32
    assert torch.equal(found, TENSORS["half"].float())


@pytest.mark.parametrize("name", ["nan", "inf"])
def test_values_that_are_not_finite_are_refused_each_time(name: str, library: Library) -> None:
    message = f"`{name}` of model `math` holds NaN or infinite values; fetch or train the model again"
    for _ in range(2):
        with pytest.raises(MergeError, match=message):
            library.float32("math", name)


def test_both_sources_say_the_same_of_their_tensors(checkpoint: Checkpoint) -> None:
    mapped = FileSource(checkpoint)
    assert dict(mapped.specs) == DictSource(TENSORS).specs
    assert mapped.specs["half"] == TensorSpec(dtype="BF16", shape=(2,))
    mapped.close()


def test_a_file_broken_after_it_was_opened_is_refused(checkpoint: Checkpoint) -> None:
    checkpoint.weight_files[0].write_bytes(b"\0" * 16)
    with pytest.raises(CheckpointError, match="is not a whole safetensors file"):
        FileSource(checkpoint)


def test_every_dtype_a_header_may_name_can_be_read(tmp_path: Path) -> None:
    assert set(DTYPES) == set(ITEM_BYTES)
    for code, dtype in DTYPES.items():
        assert torch.empty(0, dtype=dtype).element_size() == ITEM_BYTES[code]
        assert CODES[dtype] == code
    stored = {code: torch.tensor([0, 1]).to(dtype) for code, dtype in DTYPES.items()}
    save_file(stored, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    source = FileSource(open_checkpoint(tmp_path))
    for code, tensor in stored.items():
        assert source.specs[code].dtype == code
        assert torch.equal(source.read(code).view(torch.uint8), tensor.view(torch.uint8))
    source.close()


def test_a_dtype_that_no_file_holds_is_refused() -> None:
    odd: dict[str, Tensor] = {"w": torch.zeros(2, dtype=torch.complex128)}
    with pytest.raises(MergeError, match=r"`w` is torch\.complex128, which safetensors cannot hold"):
        DictSource(odd)


class Counting(DictSource):
    """Tensors in memory, and how often each was read."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__(tensors)
        self.read_of: list[str] = []

    def read(self, name: str, device: torch.device | None = None) -> Tensor:
        self.read_of.append(name)
        return super().read(name, device)


def test_what_fits_stays_on_the_device_and_the_rest_comes_anew() -> None:
    source = Counting({"a": torch.ones(4), "b": torch.ones(100), "c": torch.ones(4)})
    kept = Library({"m": source})
    device = torch.device("cpu")
    kept.keep_on(device, 20)  # bytes: one tensor of four numbers
    for _ in range(3):
        for name in "abc":
            assert torch.equal(kept.stored("m", name, device), source.read(name))
            source.read_of.pop()
    assert source.read_of == ["a", "b", "c", "b", "c", "b", "c"]
    kept.close()
    kept.stored("m", "a", device)
    assert source.read_of[-1] == "a"


def test_nothing_is_kept_on_other_devices() -> None:
    source = Counting({"a": torch.ones(4)})
    library = Library({"m": source})
    library.keep_on(torch.device("meta"), 1000)
    for _ in range(2):
        library.stored("m", "a", torch.device("cpu"))
    assert source.read_of == ["a", "a"]


def test_values_are_looked_at_but_those_that_somebody_has_looked_at() -> None:
    broken = {"w": torch.tensor([1.0, float("nan")])}
    library = Library({"math": DictSource(broken), "math:fisher": DictSource(broken)}, known_finite={"math"})
    assert library.stored("math", "w").isnan().any()
    for read in (library.stored, library.float32):
        with pytest.raises(MergeError, match="holds NaN"):
            read("math:fisher", "w")
