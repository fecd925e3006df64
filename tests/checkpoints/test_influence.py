"""Files of block influence: numbers, or a reason why not."""

from __future__ import annotations

import math
from pathlib import Path
from typing import NoReturn

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evomerge.checkpoints.influence import read_influence
from evomerge.checkpoints.measured import Measured, Origin, open_measured
from evomerge.errors import CheckpointError


def measured(file: Path, tensors: dict[str, Tensor]) -> Measured:
    origin = Origin(kind="influence", model="blake2b:m", samples=1, tokens=2, seed=0, skip_first=True)
    save_file(tensors, file, metadata=origin.metadata())
    opened = open_measured(file, "influence")
    assert opened.origin == origin
    return opened


def test_each_layer_has_its_number(tmp_path: Path) -> None:
    found = read_influence(measured(tmp_path / "i", {"influence": torch.tensor([0.5, 0.25, 0.125])}))
    assert found == (0.5, 0.25, 0.125)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"fluence": torch.ones(2)}, "i holds no tensor `influence` of one F32 number per layer; measure it"),
        ({"influence": torch.ones(2, 1)}, "i holds no tensor `influence` of one F32 number per layer"),
        ({"influence": torch.ones(2).half()}, "i holds no tensor `influence` of one F32 number per layer"),
        ({"influence": torch.tensor([1, math.nan])}, "i holds NaN or infinite values; measure it again"),
    ],
)
def test_other_contents_are_refused(tmp_path: Path, tensors: dict[str, Tensor], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        read_influence(measured(tmp_path / "i", tensors))


def test_other_kinds_of_file_are_refused(tmp_path: Path) -> None:
    measured(tmp_path / "i", {"influence": torch.ones(2)})
    with pytest.raises(CheckpointError, match=r"i holds the influence of a model, not its gram$"):
        open_measured(tmp_path / "i", "gram")
    save_file({"influence": torch.ones(2)}, tmp_path / "plain")
    with pytest.raises(CheckpointError, match=r"make one with `evomerge measure influence`$"):
        open_measured(tmp_path / "plain", "influence")


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def locked(*_: object) -> NoReturn:
        raise PermissionError(13, "Permission denied")

    measured(tmp_path / "i", {"influence": torch.ones(2)})
    monkeypatch.setattr(Path, "open", locked)
    with pytest.raises(CheckpointError, match=r"^the statistics file .*i cannot be read: Permission denied$"):
        open_measured(tmp_path / "i", "influence")
