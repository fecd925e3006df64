"""Inner products of operands."""

import pytest
import torch

from evomerge.merge.kernels import angles


def test_whole_tensors_and_rows_are_told_apart() -> None:
    operands = torch.arange(48.0).reshape(2, 4, 2, 3)
    assert angles.whole(operands).shape == (2, 1, 24)
    assert angles.rows(operands).shape == (2, 8, 3)
    assert torch.equal(angles.rows(operands)[1, 3], operands[1, 1, 1])


@pytest.mark.parametrize("shape", [(), (0,), (0, 4), (4, 0), (5,)])
def test_scalars_vectors_and_empty_tensors_have_rows(shape: tuple[int, ...]) -> None:
    operands = torch.ones(2, *shape)
    for vectors in (angles.whole(operands), angles.rows(operands)):
        products = angles.inner_products(vectors)
        assert products.shape == (vectors.shape[1], 2, 2)
        assert torch.equal(products, torch.full_like(products, vectors.shape[2]))


@pytest.mark.parametrize("block", [1, 7, 1 << 24])
def test_products_are_those_of_float64_whatever_the_block(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(angles, "_BLOCK", block)
    vectors = torch.randn(3, 4, 50, generator=torch.Generator().manual_seed(0))
    wide = vectors.double()
    products = angles.inner_products(vectors)
    torch.testing.assert_close(products, torch.einsum("ird,jrd->rij", wide, wide), rtol=1e-14, atol=1e-14)
    torch.testing.assert_close(angles.lengths(products), wide.norm(dim=-1).T, rtol=1e-14, atol=0)


def test_products_see_what_float32_would_lose() -> None:
    start = torch.ones(1, 1, 4096)
    end = start.clone()
    end[..., 0] += 2**-20
    products = angles.inner_products(torch.cat([start, end]))[0]
    assert float(products[0, 1] - products[0, 0]) == 2**-20
