"""Dropping at random: what the masks depend on, and how the rest is rescaled."""

import itertools

import pytest
import torch
from torch import Tensor

from evomerge import merge_tensors
from evomerge.errors import MergeError
from evomerge.merge.method import Site
from evomerge.merge.methods.dare_ties import DareTies
from evomerge.parameters import bind

METHODS = ("dare_linear", "dare_ties")
SHAPE = (40, 25)


def tensors(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(SHAPE, generator=generator) for name in ("a", "b")}


ZERO = {name: torch.zeros(SHAPE) for name in ("a", "b")}


def dropped(
    density: float, *, seed: int = 0, rescale: str = "none", compat: str = "evomerge"
) -> dict[str, Tensor]:
    params = {"density": density, "rescale": rescale}
    return merge_tensors("dare_linear", ZERO, [tensors(1)], params, seed=seed, compat=compat)


@pytest.mark.parametrize("word", ["drop_rate", "weight_mask_rate"])
def test_a_rate_of_dropping_is_one_less_the_density(word: str) -> None:
    found = merge_tensors("dare_linear", ZERO, [tensors(1)], {word: 0.75, "rescale": "none"})
    assert torch.equal(found["a"], dropped(0.25)["a"])


def test_masks_nest_across_densities() -> None:
    kept = [dropped(density)["a"] != 0 for density in (0.1, 0.3, 0.31, 0.8, 1.0)]
    for smaller, larger in itertools.pairwise(kept):
        assert bool((smaller <= larger).all())
        assert int(smaller.sum()) < int(larger.sum())


def test_the_density_is_the_share_that_stays() -> None:
    assert abs(float((dropped(0.3)["a"] != 0).double().mean()) - 0.3) < 0.05


def test_draws_depend_on_seed_source_and_tensor_and_on_nothing_else() -> None:
    like = torch.empty(SHAPE)

    def draws(seed: int, source: str, tensor: str, *, place: int = 0) -> Tensor:
        sources = tuple("xyz"[i] if i != place else source for i in range(3))
        return Site(tensor=tensor, sources=sources, seed=seed).uniform(place, like)

    reference = draws(0, "math", "w")
    assert torch.equal(draws(0, "math", "w", place=2), reference)
    for other in (draws(1, "math", "w"), draws(0, "code", "w"), draws(0, "math", "v")):
        assert not torch.equal(other, reference)


def test_draws_lie_in_the_half_open_unit_interval() -> None:
    draws = Site(tensor="w", sources=("m",), seed=0).uniform(0, torch.empty(100_000))
    assert 0.0 <= float(draws.min()) < 1e-3
    assert 1 - 1e-3 < float(draws.max()) < 1.0


@pytest.mark.parametrize("name", METHODS)
def test_a_mask_does_not_depend_on_the_values_or_on_other_tensors(name: str) -> None:
    params = {"density": 0.4, "rescale": "none"}
    together = merge_tensors(name, ZERO, [tensors(1)], params)["b"]
    alone = merge_tensors(name, {"b": ZERO["b"]}, [{"b": 2 * tensors(1)["b"]}], params)["b"]
    assert torch.equal(alone, 2 * together)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("rescale", ["auto", "inverse_density", "l1", "none"])
def test_density_zero_is_the_base(name: str, rescale: str) -> None:
    base = tensors(5)
    merged = merge_tensors(name, base, [tensors(1), tensors(2)], {"density": 0.0, "rescale": rescale})
    assert all(torch.equal(merged[tensor], base[tensor]) for tensor in base)


@pytest.mark.parametrize(("name", "without"), [("dare_linear", "task_arithmetic"), ("dare_ties", "ties")])
@pytest.mark.parametrize("density", [1.0, 1.7])
def test_density_one_drops_and_rescales_nothing(name: str, without: str, density: float) -> None:
    base, models = tensors(5), [tensors(1), tensors(2)]
    shared = {"weight": [0.7, 0.4], "normalize": False}
    merged = merge_tensors(name, base, models, {"density": density, "rescale": "l1", **shared})
    expected = merge_tensors(without, base, models, shared)
    assert all(torch.equal(merged[tensor], expected[tensor]) for tensor in base)


def test_inverse_density_divides_what_stays() -> None:
    plain, scaled = dropped(0.25)["a"], dropped(0.25, rescale="inverse_density")["a"]
    assert torch.equal(scaled, plain / 0.25)


def test_l1_restores_the_norm_of_each_tensor() -> None:
    for name, value in dropped(0.25, rescale="l1").items():
        before = tensors(1)[name].abs().sum()
        torch.testing.assert_close(value.abs().sum(), before)


@pytest.mark.parametrize(
    ("compat", "rescale"), [("evomerge", "inverse_density"), ("mergekit", "l1"), ("peft", "inverse_density")]
)
def test_auto_is_the_rescaling_of_the_compat(compat: str, rescale: str) -> None:
    auto = dropped(0.25, rescale="auto", compat=compat)["a"]
    assert torch.equal(auto, dropped(0.25, rescale=rescale, compat=compat)["a"])
    assert not torch.equal(auto, dropped(0.25)["a"])


def test_a_drop_rate_is_one_minus_the_density() -> None:
    by_rate = merge_tensors("dare_linear", ZERO, [tensors(1)], {"drop_rate": 0.75})
    assert torch.equal(by_rate["a"], dropped(0.25, rescale="auto")["a"])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("params", [{"density": -0.1}, {"drop_rate": 1.5}])
def test_a_negative_density_is_refused(name: str, params: dict[str, float]) -> None:
    with pytest.raises(MergeError, match="`density` must be at least 0"):
        merge_tensors(name, ZERO, [tensors(1)], params)


def test_given_masks_replace_the_draws() -> None:
    mask = {name: (torch.arange(1000).reshape(SHAPE) % 3 == 0).float() for name in ZERO}
    merged = merge_tensors(
        "dare_linear", ZERO, [tensors(1)], {"density": 0.5, "rescale": "none"}, keep_masks=[mask]
    )
    assert torch.equal(merged["a"], tensors(1)["a"] * mask["a"])


@pytest.mark.parametrize(
    "keep_masks", [[], [{}], [{name: torch.ones(3) for name in ZERO}]], ids=["none", "empty", "shape"]
)
def test_masks_that_do_not_fit_are_refused(keep_masks: list[dict[str, torch.Tensor]]) -> None:
    with pytest.raises(MergeError, match=r"keep_masks|the mask of `a` in model0"):
        merge_tensors("dare_linear", ZERO, [tensors(1)], {"density": 0.5}, keep_masks=keep_masks)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize(
    ("compat", "meant"), [("evomerge", "inverse_density"), ("mergekit", "l1"), ("peft", "inverse_density")]
)
def test_rescale_true_is_the_rescaling_of_the_compat(name: str, compat: str, meant: str) -> None:
    def merged(rescale: object) -> torch.Tensor:
        params = {"density": 0.25, "rescale": rescale}
        return merge_tensors(name, ZERO, [tensors(1)], params, compat=compat)["a"]

    assert torch.equal(merged(rescale=True), merged(meant))


def test_peft_divides_by_how_many_agree() -> None:
    base, models = {"w": torch.zeros(2)}, [{"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 4.0])}]
    merged = merge_tensors("dare_ties", base, models, {"weight": [0.9, 0.4]}, compat="peft")["w"]
    torch.testing.assert_close(merged, torch.tensor([2.1, 3.4]) / 2)


@pytest.mark.parametrize("compat", ["evomerge", "mergelm"])
@pytest.mark.parametrize("name", METHODS)
def test_magnitude_drops_the_smallest_and_draws_nothing(name: str, compat: str) -> None:
    model = {"w": torch.tensor([4.0, -1.0, 2.0, 3.0, -0.5])}
    untrimmed = {"trim_density": 1.0} if name == "dare_ties" else {}
    params = {"drop_rate": 0.4, "mask_strategy": "magnitude", **untrimmed}
    merged = merge_tensors(name, {"w": torch.zeros(5)}, [model], params, seed=4, compat=compat)["w"]
    torch.testing.assert_close(merged, torch.tensor([4.0, 0.0, 2.0, 3.0, 0.0]) / 0.6)


@pytest.mark.parametrize(
    ("compat", "kept"), [("evomerge", [1.0, 1.0, 2.0]), ("mergelm", [2.0]), ("official", [2.0])]
)
def test_compat_decides_on_magnitudes_that_equal_the_last_one_dropped(compat: str, kept: list[float]) -> None:
    model = {"w": torch.tensor([1.0, 1.0, 2.0, 1.0])}
    params = {"density": 0.75, "mask_strategy": "magnitude", "rescale": False}
    merged = merge_tensors("dare_linear", {"w": torch.zeros(4)}, [model], params, compat=compat)["w"]
    assert merged[merged != 0].tolist() == kept


def test_magnitude_drops_a_tenth_of_ten() -> None:
    """1 − 0.9 is a little less than 0.1, so a truncated count would miss one."""
    params = {"drop_rate": 0.1, "mask_strategy": "magnitude"}
    merged = merge_tensors("dare_linear", {"w": torch.zeros(10)}, [{"w": torch.arange(1.0, 11.0)}], params)
    assert int((merged["w"] == 0).sum()) == 1


def test_magnitude_drops_nothing_where_the_share_is_less_than_one_entry() -> None:
    model = {"w": torch.tensor([1.0, 2.0, 3.0])}
    params = {"drop_rate": 0.25, "mask_strategy": "magnitude", "rescale": False}
    for compat in ("evomerge", "mergelm"):
        merged = merge_tensors("dare_linear", {"w": torch.zeros(3)}, [model], params, compat=compat)
        assert torch.equal(merged["w"], model["w"])


@pytest.mark.parametrize("compat", ["official", "mergelm"])
@pytest.mark.parametrize(("params", "kept"), [({}, 0.2), ({"mask_rate": 0.7}, 0.3)])
def test_the_authors_trim_over_the_whole_model_what_dropping_left(
    compat: str, params: dict[str, float], kept: float
) -> None:
    """DARE and TIES are MergeLM's, one after the other, under given masks."""
    models = [tensors(1), {name: 3 * value for name, value in tensors(2).items()}]
    models[0]["b"] = 5 * models[0]["b"]  # so that a cut per tensor is another
    masks = [{name: (tensors(seed)[name] > 0).float() for name in ZERO} for seed in (7, 8)]
    left = [
        merge_tensors("dare_linear", ZERO, [model], {"density": 0.5}, keep_masks=[mask], compat=compat)
        for model, mask in zip(models, masks, strict=True)
    ]
    given = {"density": 0.5, **params}
    found = merge_tensors("dare_ties", ZERO, models, given, keep_masks=masks, compat=compat)
    expected = merge_tensors("ties", ZERO, left, {"density": kept}, compat="mergelm")
    assert all(torch.equal(found[name], expected[name]) for name in ZERO)


def test_the_trim_of_the_authors_changes_nothing_where_less_is_left_than_it_keeps() -> None:
    models = [tensors(1), tensors(2)]

    def merged(drop_rate: float, **params: float) -> torch.Tensor:
        given = {"drop_rate": drop_rate, **params}
        return merge_tensors("dare_ties", ZERO, models, given, compat="official")["a"]

    assert torch.equal(merged(0.9), merged(0.9, trim_density=1.0))
    assert not torch.equal(merged(0.5), merged(0.5, trim_density=1.0))


def test_what_dropping_left_may_be_trimmed_in_each_tensor() -> None:
    params = {"density": 0.5, "trim_density": 0.1}
    merged = merge_tensors("dare_ties", ZERO, [tensors(1)], params)
    for name, value in merged.items():
        left = dropped(0.5, rescale="auto")[name]
        cut = left.abs().flatten().kthvalue(left.numel() - 99).values
        assert torch.equal(value, left * (left.abs() >= cut))


@pytest.mark.parametrize("compat", ["official", "mergelm"])
def test_weights_are_refused_where_the_election_has_none(compat: str) -> None:
    """Already when parameters are bound: a plan must not be made that cannot be carried out."""
    with pytest.raises(MergeError, match="has no weights in TIES"):
        bind(DareTies, {"weight": 0.5}, 2, compat=compat)


@pytest.mark.parametrize("compat", ["official", "mergelm"])
def test_the_authors_let_nobody_win_an_undecided_election(compat: str) -> None:
    models = [{"w": torch.tensor([1.0, 5.0, -5.0])}, {"w": torch.tensor([-1.0, 5.0, -5.0])}]
    merged = merge_tensors("dare_ties", {"w": torch.zeros(3)}, models, {"trim_density": 1.0}, compat=compat)
    assert torch.equal(merged["w"], torch.tensor([0.0, 5.0, -5.0]))
