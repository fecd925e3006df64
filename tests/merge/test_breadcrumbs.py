"""Neither outliers nor dust: exact counts by tensor and by row, and small tensors that have no outliers."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.merge.kernels.crumbs import crumbs

METHODS = ("breadcrumbs", "breadcrumbs_ties")


def delta(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def merged(name: str, *deltas: Tensor, compat: str = "evomerge", **params: Any) -> Tensor:
    """Return the merged task vector of `deltas` over a base of zeros."""
    models = [{"w": each} for each in deltas]
    base = {"w": torch.zeros_like(deltas[0])}
    return merge_tensors(name, base, models, params, compat=compat)["w"]


def middle(values: Tensor, density: float, gamma: float) -> Tensor:
    """Return mergekit's mask by ascending ranks, as the reference states it, on distinct magnitudes."""
    flat = values.flatten().tolist()
    n = len(flat)
    target, top = int(density * n), int(gamma * n)
    bottom = n - target - top
    if bottom < 0:
        top, bottom = top + bottom, 0
    order = sorted(range(n), key=lambda i: abs(flat[i]))
    kept = set(order[bottom : n - top])
    masked = [value if i in kept else 0.0 for i, value in enumerate(flat)]
    return torch.tensor(masked).reshape(values.shape)


@pytest.mark.parametrize("gamma", [0.0, 0.001, 0.05, 0.1, 0.5, 1.0])
@pytest.mark.parametrize("density", [0.0, 0.05, 0.29, 0.6, 0.9, 0.99])
@pytest.mark.parametrize("shape", [(5, 20), (45,), (2, 3, 7), (3,)])
def test_the_middle_of_a_tensor_stays(shape: tuple[int, ...], density: float, gamma: float) -> None:
    values = delta(*shape)
    found = crumbs(values, density, gamma)
    assert torch.equal(found, middle(values, density, gamma))
    assert int((found != 0).sum()) == int(density * values.numel())


@pytest.mark.parametrize("compat", ["evomerge", "mergekit"])
@pytest.mark.parametrize("name", METHODS)
def test_a_tensor_too_small_for_outliers_keeps_its_largest(name: str, compat: str) -> None:
    """The defect of mergekit: removing none of 64 entries clears the whole task vector."""
    values = delta(64)
    kept = merged(name, values, density=0.9, gamma=0.01, compat=compat)
    order = values.abs().sort(descending=True).indices[: int(0.9 * 64)]
    expected = torch.zeros(64)
    expected[order] = values[order]
    assert torch.equal(kept, expected)


def test_entries_of_equal_magnitude_count_in_index_order() -> None:
    values = torch.tensor([1.0, -2.0, 2.0, -1.0, 1.0, 2.0, 0.5, -1.0])
    expected = torch.tensor([1.0, 0.0, 2.0, -1.0, 0.0, 2.0, 0.0, 0.0])
    assert torch.equal(crumbs(values, 0.5, 0.125), expected)


@pytest.mark.parametrize("remove_first", [True, False])
def test_outliers_stay_at_a_density_of_one_in_a_tensor(remove_first: bool) -> None:
    assert torch.equal(crumbs(delta(4, 5), 1.0, 0.2, remove_first=remove_first), delta(4, 5))


def test_outliers_may_be_removed_from_what_is_kept() -> None:
    values = torch.tensor([[5.0, -4.0, 3.0, 2.0], [1.0, -0.5, 0.4, 0.3]])
    expected = torch.tensor([[0.0, -4.0, 3.0, 2.0], [0.0, 0.0, 0.0, 0.0]])
    assert torch.equal(crumbs(values, 0.5, 0.125, remove_first=False), expected)
    assert not crumbs(values, 0.25, 0.5, remove_first=False).any()


@pytest.mark.parametrize("remove_first", [True, False])
@pytest.mark.parametrize(("keep", "remove"), [(0.4, 0.1), (0.9, 0.3), (0.1, 0.4), (0.5, 0.0), (0.0, 0.1)])
def test_rows_are_masked_as_the_authors_do(keep: float, remove: float, remove_first: bool) -> None:
    values = delta(2, 3, 20)
    expected = values.double().numpy().copy()
    kept, removed = int(20 * keep), int(20 * remove)
    for row in expected.reshape(-1, 20):
        order = np.argsort(-np.abs(row))
        stay = order[removed:][:kept] if remove_first else order[:kept][removed:]
        row[np.setdiff1d(order, stay)] = 0.0
    found = crumbs(values, keep, remove, scope="last_dim", remove_first=remove_first)
    assert torch.equal(found, torch.from_numpy(expected).float())


def test_rows_leave_a_scalar_as_it_is() -> None:
    assert crumbs(torch.tensor(3.0), 0.1, 0.5, scope="last_dim").item() == 3.0


def test_compat_decides_what_shares_are_counted_over() -> None:
    values = delta(5, 20)
    params: dict[str, Any] = {"top_k_keep": 0.4, "top_k_remove": 0.1}
    official = merged("breadcrumbs", values, compat="official", **params)
    assert torch.equal(official, crumbs(values, 0.4, 0.1, scope="last_dim"))
    assert torch.equal(merged("breadcrumbs", values, scope="tensor", compat="official", **params),
                       merged("breadcrumbs", values, **params))  # fmt: skip
    assert not torch.equal(official, merged("breadcrumbs", values, **params))
    assert torch.equal(
        merged("breadcrumbs", values, compat="official"), crumbs(values, 0.15, 0.01, scope="last_dim")
    )


def test_breadcrumbs_adds_with_weights_of_which_each_source_has_its_own() -> None:
    one, other = delta(5, 20, seed=1), delta(5, 20, seed=2)
    params: dict[str, Any] = {"density": [0.6, 0.8], "gamma": [0.1, 0.05], "lambda": 0.7}
    total = 0.6 * middle(one, 0.6, 0.1).double() + 0.4 * middle(other, 0.8, 0.05).double()
    for normalize, divisor in ((False, 1.0), (True, 1.0), (True, 2.0)):
        weights = [weight * divisor for weight in (0.6, 0.4)]
        found = merged("breadcrumbs", one, other, weights=weights, normalize=normalize, **params)
        torch.testing.assert_close(found, (0.7 * total).float(), rtol=1e-6, atol=1e-7)


def test_breadcrumbs_ties_elects_among_the_crumbs() -> None:
    one, other = delta(5, 20, seed=1), delta(5, 20, seed=2)
    found = merged("breadcrumbs_ties", one, other, weights=[0.6, 0.4], density=0.5, gamma=0.1, normalize=True)
    kept = torch.stack([middle(each, 0.5, 0.1) for each in (one, other)]).double()
    weighted = kept * torch.tensor([0.6, 0.4]).double().reshape(2, 1, 1)
    sign = weighted.sum(0).sign()
    agree = (kept.sign() == sign) & (kept != 0)
    divisor = (agree * torch.tensor([0.6, 0.4]).double().reshape(2, 1, 1)).sum(0)
    expected = (weighted * agree).sum(0) / divisor.where(divisor != 0, 1.0)
    torch.testing.assert_close(found, expected.float(), rtol=1e-6, atol=1e-7)
