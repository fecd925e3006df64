"""A compressed task vector stands for what the method `compeft` makes of one source."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.checkpoints.tensors import DictSource
from evomerge.checkpoints.ternary import CODINGS
from evomerge.checkpoints.ternary_file import TernaryFile, restore
from evomerge.errors import MergeError
from evomerge.merge.compress import compress_model

SHAPES = {"b": (16, 12), "a": (50,), "scalar": ()}


def models(dtype: torch.dtype) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    generator = torch.Generator().manual_seed(2)
    base = {name: torch.randn(shape, generator=generator) for name, shape in SHAPES.items()}
    tuned = {
        name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in base.items()
    }
    one, other = ({name: value.to(dtype) for name, value in each.items()} for each in (base, tuned))
    return {**one, "steps": torch.tensor([1])}, {**other, "steps": torch.tensor([2])}


@pytest.mark.parametrize("coding", CODINGS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    "params",
    [{"density": 0.05}, {"density": 0.2, "alpha": 3.0}, {"scope": "tensor"}, {"mode": "stc", "density": 0.5}],
)
def test_what_is_restored_is_what_the_method_merges(
    params: dict[str, Any], dtype: torch.dtype, coding: str, tmp_path: Path
) -> None:
    base, tuned = models(dtype)
    compress_model(tmp_path / "v", DictSource(base), DictSource(tuned), coding=coding, **params)
    found, want = restore(tmp_path / "v", DictSource(base)), merge_tensors("compeft", base, [tuned], params)
    assert list(found) == list(want)
    for name, value in want.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)


def test_the_model_scope_has_one_magnitude_and_exactly_as_many_entries(tmp_path: Path) -> None:
    base, tuned = models(torch.float32)
    compress_model(tmp_path / "v", DictSource(base), DictSource(tuned), density=0.1)
    entries = TernaryFile(tmp_path / "v").entries.values()
    assert len({entry.scale for entry in entries if entry.kept}) == 1
    assert sum(entry.kept for entry in entries) == int(0.1 * (16 * 12 + 50 + 1))


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    base, tuned = models(torch.float32)
    with pytest.raises(MergeError, match="`mode: prune` gives no signs"):
        compress_model(tmp_path / "v", DictSource(base), DictSource(tuned), mode="prune")
    with pytest.raises(MergeError, match=r"`a` of the model is \[3\], not \[50\]"):
        compress_model(tmp_path / "v", DictSource(base), DictSource({**tuned, "a": torch.ones(3)}))


def test_tensors_of_one_of_the_two_only_are_the_bases(tmp_path: Path) -> None:
    base, tuned = models(torch.float32)
    del tuned["a"]
    compress_model(tmp_path / "v", DictSource(base), DictSource({**tuned, "more": torch.ones(3)}))
    found = restore(tmp_path / "v", DictSource(base))
    assert list(found) == list(base)
    assert torch.equal(found["a"], base["a"])
