"""Sources that hold no numbers are refused before anything is merged."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from evomerge.checkpoints import finite
from evomerge.checkpoints.finite import check_finite
from evomerge.checkpoints.folder import Checkpoint, open_checkpoint
from evomerge.errors import CheckpointError


def saved(folder: Path, tensors: Mapping[str, Tensor]) -> Checkpoint:
    folder.mkdir()
    save_file(dict(tensors), folder / "model.safetensors")
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return open_checkpoint(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_tensor_and_the_model_at_fault_are_named(
    value: float, dtype: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finite, "_ENTRIES", 5)  # so that the last entry lies in another block
    wrong = torch.zeros(4, 3, dtype=dtype)
    wrong[-1, -1] = value
    models = {
        "math": saved(tmp_path / "math", {"a": torch.ones(4, 3, dtype=dtype), "n": torch.tensor([2**62])}),
        "lang": saved(tmp_path / "lang", {"a": torch.ones(2, dtype=dtype), "b": wrong}),
    }
    with pytest.raises(CheckpointError, match=r"^`lang` cannot be merged: `b` of .*lang holds NaN"):
        check_finite(models)
    check_finite({"math": models["math"]})


def test_a_model_that_two_share_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = saved(tmp_path / "m", {"a": torch.ones(2)})
    read: list[str] = []
    check: Callable[[str, Checkpoint], None] = finite._check

    def counted(name: str, part: Checkpoint) -> Any:
        read.append(name)
        check(name, part)

    monkeypatch.setattr(finite, "_check", counted)
    check_finite({"one": model, "two": model})
    assert read == ["one"]


def test_empty_tensors_and_scalars_are_looked_at(tmp_path: Path) -> None:
    check_finite({"m": saved(tmp_path / "m", {"none": torch.zeros(0, 3), "one": torch.tensor(1.0)})})
