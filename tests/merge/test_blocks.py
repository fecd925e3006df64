"""Blocks are views of the whole, and what is merged by blocks is what is merged at once."""

import pytest
import torch

from evomerge import merge_tensors
from evomerge.merge.kernels.blocks import blocks


@pytest.mark.parametrize("shape", [(), (0, 3), (5,), (3, 4)])
def test_blocks_are_views_of_every_entry_in_order(
    shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("evomerge.merge.kernels.blocks.block_size", lambda device: 2)
    tensors = torch.arange(2.0 * torch.zeros(shape).numel()).reshape(2, *shape)
    found = list(blocks(tensors))
    assert all(block.shape[1] <= 2 for block in found)
    assert [float(x) for row in (0, 1) for block in found for x in block[row]] == tensors.flatten().tolist()
    for block in found:
        block.zero_()
    assert not tensors.any()


@pytest.mark.parametrize("scope", ["tensor", "model"])
@pytest.mark.parametrize("method", ["ties", "pcb"])
@pytest.mark.parametrize("compat", ["evomerge", "official"])
def test_blocks_change_nothing(method: str, scope: str, compat: str, monkeypatch: pytest.MonkeyPatch) -> None:
    generator = torch.Generator().manual_seed(1)
    base = {"a": torch.randn(7, 9, generator=generator), "b": torch.randn(30, generator=generator)}
    models = [
        {name: value + torch.randn(value.shape, generator=generator) for name, value in base.items()}
        for _ in range(3)
    ]
    params = {"scope": scope, "density": 0.4}
    whole = merge_tensors(method, base, models, params, compat=compat)
    monkeypatch.setattr("evomerge.merge.kernels.blocks.block_size", lambda device: 4)
    parts = merge_tensors(method, base, models, params, compat=compat)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, rtol=1e-5, atol=1e-6)
