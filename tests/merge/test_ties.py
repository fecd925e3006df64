"""Trim, elect, merge: exact counts, whole-model trimming, and where the implementations differ."""

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from evomerge import merge_tensors
from evomerge.errors import MergeError

FEW = [-2.0, -1.0, -0.5, 0.0, 0.5, 1.0, 2.0]  # few magnitudes, as in bfloat16: ties everywhere


def ties(*deltas: Tensor, compat: str = "evomerge", **params: Any) -> Tensor:
    """Return the merged task vector of `deltas` over a base of zeros."""
    base = {"w": torch.zeros_like(deltas[0])}
    return merge_tensors("ties", base, [{"w": delta} for delta in deltas], params, compat=compat)["w"]


def test_exactly_k_stay_and_ties_keep_the_lower_flat_index() -> None:
    delta = torch.tensor([[1.0, -1.0, 1.0], [3.0, 1.0, -1.0]])
    assert torch.equal(ties(delta, density=0.5), torch.tensor([[1.0, -1.0, 0.0], [3.0, 0.0, 0.0]]))


def test_each_source_has_its_own_density() -> None:
    one, other = torch.tensor([4.0, 3.0, 2.0, 1.0]), torch.tensor([1.0, 2.0, 3.0, 4.0])
    found = ties(one, other, density=[0.25, 0.5], merge="sum")
    assert torch.equal(found, torch.tensor([4.0, 0.0, 3.0, 4.0]))


def test_the_sign_with_more_magnitude_wins_and_only_agreeing_entries_count() -> None:
    found = ties(torch.tensor([3.0, -1.0]), torch.tensor([-1.0, -1.0]), torch.tensor([-1.0, 4.0]))
    assert torch.equal(found, torch.tensor([3.0, 4.0]))


def test_counting_votes_each_source_once() -> None:
    deltas = torch.tensor([3.0]), torch.tensor([-1.0]), torch.tensor([-1.0])
    assert ties(*deltas, sign_method="total").item() == 3.0
    assert ties(*deltas, sign_method="count").item() == -1.0


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({"consensus_method": "count"}, {"sign_method": "count"}),
        ({"consensus_method": "sum"}, {"sign_method": "total"}),
        ({"majority_sign_method": "frequency"}, {"sign_method": "count"}),
        ({"param_value_mask_rate": 0.5}, {"density": 0.5}),
        ({"scaling_coefficient": 0.5}, {"lambda": 0.5}),
    ],
)
def test_mergekits_pefts_and_mergelms_words_mean_the_same(
    theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    deltas = torch.tensor([3.0, 1.0]), torch.tensor([-1.0, 2.0]), torch.tensor([-1.0, 2.0])
    assert torch.equal(ties(*deltas, **theirs), ties(*deltas, **ours))


@pytest.mark.parametrize(("merge", "value"), [("mean", 1.5), ("sum", 3.0), ("max", 2.0)])
def test_what_becomes_of_those_agreeing(merge: str, value: float) -> None:
    found = ties(torch.tensor([2.0]), torch.tensor([1.0]), torch.tensor([-1.0]), merge=merge)
    assert found.item() == value


def test_lambda_scales_and_the_base_stays() -> None:
    base, model = {"w": torch.tensor([1.0, 2.0])}, {"w": torch.tensor([3.0, 2.0])}
    assert torch.equal(merge_tensors("ties", base, [model], {"lambda": 0.5})["w"], torch.tensor([2.0, 2.0]))


def test_density_zero_is_the_base() -> None:
    deltas = torch.tensor([1.0, 2.0]), torch.tensor([-1.0, 2.0])
    for scope in ("tensor", "model"):
        assert torch.equal(ties(*deltas, density=0.0, scope=scope), torch.zeros(2))


def test_a_negative_density_is_refused() -> None:
    with pytest.raises(MergeError, match=r"`density` must be at least 0, found -0\.5"):
        ties(torch.ones(2), density=-0.5)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(
    sizes=st.lists(st.integers(min_value=0, max_value=7), min_size=1, max_size=4).filter(any),
    density=st.floats(min_value=0.0, max_value=1.0),
    data=st.data(),
)
def test_model_scope_trims_as_one_stable_sort_of_the_whole_model(
    sizes: list[int], density: float, data: st.DataObject
) -> None:
    flat = torch.tensor(data.draw(st.lists(st.sampled_from(FEW), min_size=sum(sizes), max_size=sum(sizes))))
    order = flat.abs().sort(descending=True, stable=True).indices[: int(density * len(flat))]
    expected = torch.zeros_like(flat)
    expected[order] = flat[order]
    names = [f"t{i}" for i in range(len(sizes))]
    model = dict(zip(names, torch.split(flat, sizes), strict=True))
    base = {name: torch.zeros_like(value) for name, value in model.items()}
    merged = merge_tensors("ties", base, [model], {"density": density, "scope": "model"})
    assert torch.equal(torch.cat([merged[name] for name in names]), expected)


def test_model_scope_cuts_each_source_at_its_own_threshold() -> None:
    base = {"a": torch.zeros(2), "b": torch.zeros(2)}
    one = {"a": torch.tensor([9.0, 8.0]), "b": torch.tensor([1.0, 1.0])}
    other = {"a": torch.tensor([1.0, 1.0]), "b": torch.tensor([8.0, 9.0])}
    merged = merge_tensors("ties", base, [one, other], {"density": 0.5, "scope": "model"})
    assert torch.equal(merged["a"], one["a"])
    assert torch.equal(merged["b"], other["b"])


def test_compat_decides_who_votes() -> None:
    deltas = torch.tensor([2.0]), torch.tensor([-3.0])
    weight = [1.0, 0.5]  # weighted, 2 against -1.5; unweighted, 2 against -3
    assert ties(*deltas, weight=weight, compat="mergekit").item() == 2.0
    assert ties(*deltas, weight=weight, compat="peft").item() == -1.5


def test_compat_decides_what_divides() -> None:
    deltas = torch.tensor([2.0]), torch.tensor([1.0])
    weight = [1.0, 0.5]
    torch.testing.assert_close(ties(*deltas, weight=weight, compat="mergekit"), torch.tensor([2.5 / 1.5]))
    assert ties(*deltas, weight=weight, compat="peft").item() == 1.25


@pytest.mark.parametrize(
    ("compat", "undecided"), [("mergekit", 1.0), ("peft", 1.0), ("official", -1.0), ("mergelm", -1.0)]
)
def test_compat_decides_an_undecided_vote(compat: str, undecided: float) -> None:
    """The decided votes are +, −, −: the authors' code and MergeLM let that majority decide, so negative."""
    one, other = torch.tensor([1.0, 5.0, -5.0, -5.0]), torch.tensor([-1.0, 5.0, -5.0, -5.0])
    assert ties(one, other, compat=compat)[0].item() == undecided


@pytest.mark.parametrize(
    ("compat", "undecided"), [("official", -1.0), ("mergelm", 0.0), ("fusion_bench", -1.0)]
)
def test_compat_decides_when_there_is_no_majority_either(compat: str, undecided: float) -> None:
    one, other = torch.tensor([1.0, 5.0, -5.0]), torch.tensor([-1.0, 5.0, -5.0])
    assert ties(one, other, compat=compat, **{"lambda": 1.0})[0].item() == undecided


@pytest.mark.parametrize(("density", "kept"), [(0.9, 55), (0.8, 49), (0.7, 43), (0.2, 13)])
def test_mergelm_drops_a_rounded_down_share_and_keeps_one_more(density: float, kept: int) -> None:
    delta = torch.arange(1.0, 61.0)
    assert int((ties(delta, compat="mergelm", density=density) != 0).sum()) == kept
    assert int((ties(delta, compat="mergelm", mask_rate=1 - density) != 0).sum()) == kept


@pytest.mark.parametrize(("compat", "kept"), [("official", 4), ("mergelm", 4), ("evomerge", 1)])
def test_every_tie_stays_in_a_tensor_too_where_the_rules_say_so(compat: str, kept: int) -> None:
    delta = torch.tensor([1.0, -1.0, 1.0, 3.0])
    merged = ties(delta, density=0.25, scope="tensor", compat=compat)
    assert int((merged != 0).sum()) == kept


def test_a_stated_scope_counts_under_every_compat() -> None:
    """MergeLM's rule with the scope of a tensor: kept are 4 - int(4 * 0.5) + 1 entries of each."""
    base = {"a": torch.zeros(4), "b": torch.zeros(4)}
    model = {"a": torch.arange(1.0, 5.0), "b": torch.arange(5.0, 9.0)}
    params = {"density": 0.5, "scope": "tensor"}
    merged = merge_tensors("ties", base, [model], params, compat="mergelm")
    assert torch.equal(merged["a"], torch.tensor([0.0, 2.0, 3.0, 4.0]))
    assert torch.equal(merged["b"], torch.tensor([0.0, 6.0, 7.0, 8.0]))


def test_official_majority_may_be_positive() -> None:
    one, other = torch.tensor([1.0, 5.0]), torch.tensor([-1.0, 5.0])
    assert ties(one, other, compat="official")[0].item() == 1.0


@pytest.mark.parametrize(
    ("compat", "count"), [("official", 3), ("mergelm", 3), ("fusion_bench", 3), ("evomerge", 2)]
)
def test_compat_decides_how_many_stay(compat: str, count: int) -> None:
    delta = torch.arange(1.0, 9.0)
    assert int((ties(delta, density=0.25, compat=compat) != 0).sum()) == count


def test_official_keeps_every_tie_at_the_cut() -> None:
    delta = torch.tensor([1.0, -1.0, 1.0, 3.0])
    assert torch.equal(ties(delta, density=0.25, compat="official"), delta)


def test_official_trims_over_the_whole_model() -> None:
    base = {"a": torch.zeros(4), "b": torch.zeros(4)}
    model = {"a": torch.arange(1.0, 5.0), "b": torch.arange(5.0, 9.0)}
    merged = merge_tensors("ties", base, [model], {"k_percent": 25}, compat="official")
    assert torch.equal(merged["a"], base["a"])
    assert torch.equal(merged["b"], torch.tensor([0.0, 6.0, 7.0, 8.0]))


def test_fusion_bench_is_the_authors_ties_with_other_defaults() -> None:
    base = {"a": torch.zeros(4), "b": torch.zeros(4)}
    models = [
        {"a": torch.arange(1.0, 5.0), "b": torch.arange(5.0, 9.0)},
        {"a": torch.arange(4.0, 8.0), "b": -torch.arange(0.0, 4.0)},
    ]
    found = merge_tensors("ties", base, models, {"density": 0.5}, compat="fusion_bench")
    authors = {"density": 0.5, "merge": "sum", "lambda": 0.3}
    expected = merge_tensors("ties", base, models, authors, compat="official")
    assert all(torch.equal(found[name], expected[name]) for name in base)
    assert float(found["a"].sum()) == pytest.approx(0.3 * (4 + 4 + 5 + 6 + 7))
    given = merge_tensors("ties", base, models, {**authors, "lambda": 1.0}, compat="fusion_bench")
    torch.testing.assert_close(given["a"], found["a"] / 0.3)


@pytest.mark.parametrize("compat", ["official", "mergelm", "fusion_bench"])
def test_weights_are_refused_where_the_rules_have_none(compat: str) -> None:
    with pytest.raises(MergeError, match=f"`compat: {compat}` has no weights"):
        ties(torch.ones(2), torch.ones(2), weight=[1.0, 0.5], compat=compat)
