"""MagPrune: whose chance to stay is what, what may be asked, and what becomes of what stays."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from evomerge import merge_tensors
from evomerge.errors import MergeError
from evomerge.merge.kernels.magprune import half_widths, keep_chance
from evomerge.merge.kernels.ranking import ranks
from evomerge.merge.method import Site
from evomerge.merge.methods.della import Della
from evomerge.parameters import bind, declared

METHODS = ("della", "della_linear")
Array = NDArray[np.float64]


def delta(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def chances(values: Tensor, density: float, epsilon: float) -> Array:
    """Return MagPrune's chances by row, written from the formula, in float64."""
    rows = np.abs(values.double().numpy()).reshape(-1, values.shape[-1])
    out: Array = np.empty_like(rows)
    for row, into in zip(rows, out, strict=True):
        for rank, place in enumerate(sorted(range(len(row)), key=lambda i: row[i])):
            into[place] = density - epsilon + 2 * epsilon * rank / (len(row) - 1)
    return out.reshape(values.shape)


def merged(name: str, *deltas: Tensor, seed: int = 0, compat: str = "evomerge", **params: Any) -> Tensor:
    """Return the merged task vector of `deltas` over a base of zeros."""
    models = [{"w": each} for each in deltas]
    base = {"w": torch.zeros_like(deltas[0])}
    return merge_tensors(name, base, models, params, seed=seed, compat=compat)["w"]


@pytest.mark.parametrize("shape", [(5, 9), (7,), (2, 3, 4), (1, 2)])
def test_chances_rise_with_the_rank_in_each_row_along_the_last_dim(shape: tuple[int, ...]) -> None:
    values = delta(*shape)
    expected = torch.from_numpy(chances(values, 0.6, 0.25)).float()
    torch.testing.assert_close(keep_chance(values, 0.6, 0.25), expected, rtol=1e-6, atol=1e-7)


def test_equal_magnitudes_rank_by_position() -> None:
    values = torch.tensor([[2.0, -1.0, 1.0, 2.0]])
    expected = torch.tensor([[0.6, 0.3, 0.45, 0.75]])
    torch.testing.assert_close(keep_chance(values, 0.525, 0.225), expected)


def test_layer_ranks_the_whole_tensor_as_one_row() -> None:
    values = delta(3, 4)
    whole = keep_chance(values, 0.5, 0.2, rank_scope="layer")
    assert torch.equal(whole, keep_chance(values.flatten(), 0.5, 0.2).reshape(3, 4))
    assert not torch.equal(whole, keep_chance(values, 0.5, 0.2))


def test_norank_goes_by_where_a_magnitude_lies_in_its_row() -> None:
    found = keep_chance(torch.tensor([[1.0, -2.0, 5.0]]), 0.5, 0.2, rank_scope="norank")
    torch.testing.assert_close(found, torch.tensor([[0.3, 0.4, 0.7]]), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("scope", ["row", "layer", "norank"])
@pytest.mark.parametrize("shape", [(), (1,), (4, 1), (0,), (0, 3), (3, 0), (2, 2)])
def test_chances_have_the_shape_of_the_delta_and_are_never_nan(shape: tuple[int, ...], scope: str) -> None:
    found = keep_chance(torch.zeros(shape), 0.5, 0.2, rank_scope=scope)
    assert found.shape == shape
    assert bool(((found >= 0.3 - 1e-6) & (found <= 0.7 + 1e-6)).all())


@pytest.mark.parametrize("shape", [(), (1,), (4, 1)])
def test_rows_of_one_entry_stay_at_the_density(shape: tuple[int, ...]) -> None:
    assert torch.equal(keep_chance(delta(*shape), 0.5, 0.2), torch.full(shape, 0.5))


def test_ranks_are_the_same_whatever_fits_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = delta(7, 5)
    at_once = ranks(rows)
    monkeypatch.setattr("evomerge.merge.kernels.ranking._ENTRIES", 10)
    assert torch.equal(ranks(rows), at_once)


def test_a_draw_below_the_chance_stays_and_is_divided_by_it() -> None:
    values = delta(6, 8)
    draws = Site(tensor="w", sources=("model0",), seed=3).uniform(0, values).double().numpy()
    chance = chances(values, 0.4, 0.1)
    expected = torch.from_numpy(np.where(draws < chance, values.double().numpy() / chance, 0.0)).float()
    found = merged("della_linear", values, seed=3, density=0.4, epsilon=0.1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0.0)


def test_masks_nest_across_densities() -> None:
    values = delta(20, 30)
    kept = [merged("della_linear", values, density=density, epsilon=0.1) != 0 for density in (0.2, 0.5, 0.8)]
    for smaller, larger in itertools.pairwise(kept):
        assert bool((smaller <= larger).all())
        assert int(smaller.sum()) < int(larger.sum())


def test_compat_decides_how_the_kept_make_up_for_the_dropped() -> None:
    values = delta(6, 8)

    def pruned(**given: str) -> Tensor:
        params: dict[str, Any] = {"density": 0.5, "epsilon": 0.2, **given}
        return merged("della_linear", values, **params)

    plain, own = pruned(rescale="none"), pruned()
    theirs, authors = pruned(compat="mergekit"), pruned(compat="official", rescale="inverse_prob")
    assert torch.equal(own, authors)
    torch.testing.assert_close(theirs, plain * (values.abs().sum() / plain.abs().sum()))
    torch.testing.assert_close(own, plain / keep_chance(values, 0.5, 0.2))
    assert not torch.allclose(own, theirs, rtol=1e-3)


def test_della_elects_on_weighted_vectors_and_divides_by_the_weights_that_agree() -> None:
    one, other = delta(6, 8, seed=1), delta(6, 8, seed=2)
    weight = np.array([0.8, 0.6])
    masks = [torch.rand((6, 8), generator=torch.Generator().manual_seed(i)) < 0.6 for i in (7, 8)]
    given = [{"w": mask.float()} for mask in masks]
    params = {"weights": list(weight), "density": [0.6, 0.5], "epsilon": [0.15, 0.1], "lambda": 1.1}
    base = {"w": delta(6, 8, seed=3)}
    models = [{"w": base["w"] + each} for each in (one, other)]
    kept = np.stack([
        mask.double().numpy() * (model["w"] - base["w"]).double().numpy()
        / chances(model["w"] - base["w"], density, epsilon)
        for mask, model, density, epsilon in zip(masks, models, (0.6, 0.5), (0.15, 0.1), strict=True)
    ])  # fmt: skip
    weighted = kept * weight[:, None, None]
    sign = np.where(weighted.sum(0) >= 0, 1.0, -1.0)
    agree = (np.sign(kept) == sign) & (kept != 0)
    divisor = (agree * weight[:, None, None]).sum(0)
    for normalize, by in ((True, np.where(divisor == 0, 1.0, divisor)), (False, 1.0)):
        expected = base["w"].double() + torch.from_numpy(1.1 * (weighted * agree).sum(0) / by)
        found = merge_tensors("della", base, models, {**params, "normalize": normalize}, keep_masks=given)
        torch.testing.assert_close(found["w"], expected.float(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("name", "normalize"), [("della", True), ("della_linear", False)])
def test_della_normalizes_unless_it_only_adds(name: str, normalize: bool) -> None:
    values = delta(6, 8)
    assert torch.equal(
        merged(name, values, weight=0.5), merged(name, values, weight=0.5, normalize=normalize)
    )


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("density", "epsilon"), [(0.1, 0.15), (0.15, 0.15), (0.9, 0.15), (0.7, 0.3), (0.5, -0.1), (0.5, 0.6)]
)
def test_chances_outside_the_open_unit_interval_are_refused(
    name: str, density: float, epsilon: float
) -> None:
    with pytest.raises(MergeError, match=r"`epsilon` must be at least 0 and below"):
        merged(name, delta(2, 3), density=density, epsilon=epsilon)


def test_an_epsilon_share_beyond_the_room_is_refused_as_such() -> None:
    with pytest.raises(MergeError, match="`epsilon_share` must be at most 1, found 2"):
        merged("della", delta(2, 3), density=0.3, epsilon_share=2.0)


def test_an_epsilon_share_of_one_is_refused() -> None:
    with pytest.raises(MergeError, match="`epsilon_share` below 1"):
        merged("della", delta(2, 3), density=0.3, epsilon_share=1.0)


@pytest.mark.parametrize("density", [0.0, 0.05, 0.2, 0.5, 0.8, 0.95, 1.0])
def test_every_candidate_of_a_search_is_valid(density: float) -> None:
    """Also at densities that other methods of the same space search."""
    spec: Any = declared(Della)["epsilon_share"].spec
    for share in (spec.low, spec.high):
        bind(Della, {"density": density, "epsilon_share": share}, 2, compat="evomerge")


def test_epsilon_share_is_of_the_room_there_is_and_epsilon_overrides_it() -> None:
    density = (0.5, 0.2, 0.9, 1.0)
    shared = half_widths(density, (-1.0,) * 4, (0.5,) * 4)
    assert shared == pytest.approx((0.25, 0.1, 0.05, 0.0))
    assert half_widths(density, (0.15, -1.0, 0.0, 0.3), (0.5,) * 4) == pytest.approx((0.15, 0.1, 0.0, 0.0))


def test_a_window_is_twice_epsilon() -> None:
    values = delta(6, 8)
    wide = merged("della_linear", values, density=0.5, window_size=0.4)
    assert torch.equal(wide, merged("della_linear", values, density=0.5, epsilon=0.2))
    assert not torch.equal(wide, merged("della_linear", values, density=0.5, epsilon=0.1))


@pytest.mark.parametrize("rescale", ["auto", "inverse_density", "l1", "none"])
@pytest.mark.parametrize("name", METHODS)
def test_nothing_stays_at_density_zero_and_everything_at_one(name: str, rescale: str) -> None:
    values = delta(6, 8)
    assert not merged(name, values, density=0.0, rescale=rescale).any()
    assert torch.equal(merged(name, values, density=1.0, rescale=rescale), values)


def test_pruning_is_right_on_average() -> None:
    values = delta(8, 16)
    runs = [merged("della_linear", values, seed=seed, density=0.5, epsilon=0.2) for seed in range(400)]
    share = torch.stack([(run != 0).double() for run in runs]).mean(0)
    chance = keep_chance(values, 0.5, 0.2).double()
    bound = 5 * (chance * (1 - chance) / 400).sqrt()
    assert bool(((share - chance).abs() <= bound).all())
    mean = torch.stack([run.double() for run in runs]).mean(0)
    bound = 5 * values.double().abs() * ((1 - chance) / chance / 400).sqrt()
    assert bool(((mean - values.double()).abs() <= bound).all())


@pytest.mark.parametrize(("compat", "epsilon"), [("mergekit", 0.15), ("official", 0.07)])
def test_an_epsilon_that_is_not_given_is_that_of_the_implementation(compat: str, epsilon: float) -> None:
    bound = bind(Della, {"density": 0.5}, 1, compat=compat)
    assert half_widths(bound.density, bound.epsilon, bound.epsilon_share) == (epsilon,)
